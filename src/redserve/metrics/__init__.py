"""RED and inference instruments on a prometheus_client registry."""
