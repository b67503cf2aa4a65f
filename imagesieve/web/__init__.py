"""One safe fetch of a URL, for the downloader and the service: URLs, connections, the fetch."""
