module tidegate.dev/lab/own

go 1.26.0
