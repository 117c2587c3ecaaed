"""Debian's Prometheus beside the cluster, scraping the operator through the API server."""

import base64
from typing import Any

import yaml

from e2e.lab.archives import Entry
from e2e.lab.containers import Containers
from e2e.lab.images import Images

PORT = 9090
FOLDER = "/etc/prometheus"
OPERATOR_LABEL = "app_kubernetes_io_name"
OPERATOR_NAME = "tidegate"
PORT_NAME = "metrics"


def start_prometheus(containers: Containers, images: Images, kubeconfig: dict[str, Any]) -> None:
    """Starts it with the cluster's administrator credentials."""
    cluster = kubeconfig["clusters"][0]["cluster"]
    user = kubeconfig["users"][0]["user"]
    secrets = {
        "ca.crt": cluster["certificate-authority-data"],
        "client.crt": user["client-certificate-data"],
        "client.key": user["client-key-data"],
    }
    files = {f"{FOLDER}/{name}": Entry(base64.b64decode(data), 0o644) for name, data in secrets.items()}
    settings = yaml.safe_dump(prometheus_config(cluster["server"]), sort_keys=False)
    files[f"{FOLDER}/prometheus.yml"] = Entry(settings.encode())
    containers.run("prometheus", images.build("prometheus", "trixie"), files=files)


def prometheus_config(server: str) -> dict[str, Any]:
    """Scrapes every pod named tidegate at its port named metrics.

    Pod addresses lead nowhere outside the cluster, so each scrape goes through the API server's proxy.
    """
    access = {
        "tls_config": {
            "ca_file": f"{FOLDER}/ca.crt",
            "cert_file": f"{FOLDER}/client.crt",
            "key_file": f"{FOLDER}/client.key",
        }
    }
    pod = "__meta_kubernetes_pod"
    return {
        "global": {"scrape_interval": "5s"},
        "scrape_configs": [
            {
                "job_name": "tidegate",
                "scheme": "https",
                **access,
                "kubernetes_sd_configs": [{"role": "pod", "api_server": server, **access}],
                "relabel_configs": [
                    {"source_labels": [f"{pod}_label_{OPERATOR_LABEL}"], "regex": OPERATOR_NAME, "action": "keep"},
                    {"source_labels": [f"{pod}_container_port_name"], "regex": PORT_NAME, "action": "keep"},
                    {
                        "source_labels": ["__meta_kubernetes_namespace", f"{pod}_name", f"{pod}_container_port_number"],
                        "regex": "(.+);(.+);(.+)",
                        "target_label": "__metrics_path__",
                        "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
                    },
                    {"source_labels": [f"{pod}_name"], "target_label": "pod"},
                    {"target_label": "__address__", "replacement": server.removeprefix("https://")},
                ],
            }
        ],
    }
