# The operator: Debian's Python, the locked packages, nothing to compile with and nobody to be root.
# BASE may be any Debian with Python 3.11 or newer, such as one that reaches packages through a site's own mirror.
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get -qq update \
 && apt-get -qq install --no-install-recommends python3 python3-venv
RUN ["python3", "-m", "venv", "/opt/tidegate"]
WORKDIR /src
COPY requirements-operator.lock ./
RUN ["/opt/tidegate/bin/pip", "install", "--quiet", "--no-cache-dir", "--only-binary", ":all:", \
     "--require-hashes", "--requirement", "requirements-operator.lock"]
COPY pyproject.toml README.md LICENSE ./
COPY operator/tidegate operator/tidegate
RUN ["/opt/tidegate/bin/pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "."]
RUN ["/opt/tidegate/bin/pip", "uninstall", "--quiet", "--yes", "pip"]

FROM ${BASE}
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get -qq update \
 && apt-get -qq install --no-install-recommends python3 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tidegate
LABEL org.opencontainers.image.title=tidegate org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /opt/tidegate /opt/tidegate
ENV PATH=/opt/tidegate/bin:/usr/local/bin:/usr/bin:/bin
USER 10001:10001
ENTRYPOINT ["tidegate"]
CMD ["operator"]
