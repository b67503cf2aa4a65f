"""Run a rival as its own users do, but against another Bing.

    ENVIRONMENT/bin/python rival.py TOOL BASE_URL QUERY FOLDER LIMIT THREADS

It runs under the Python of the rival's own environment and uses nothing else. The only change is
made to addresses on their way out: Bing's becomes BASE_URL.
"""

import sys
import urllib.request

BING = "https://www.bing.com"


def send_elsewhere(base_url: str) -> None:
    """Have urllib and, where it is installed, requests ask `base_url` instead of Bing."""

    class Request(urllib.request.Request):
        def __init__(self, url: str, *arguments: object, **options: object) -> None:
            super().__init__(url.replace(BING, base_url, 1), *arguments, **options)

    urllib.request.Request = Request
    try:
        import requests
    except ImportError:
        return
    request = requests.Session.request

    def elsewhere(session, method, url, **options):
        return request(session, method, url.replace(BING, base_url, 1), **options)

    requests.Session.request = elsewhere


def bing_image_downloader(query: str, folder: str, limit: int, _threads: int) -> None:
    """Run the command line of bing-image-downloader."""
    from bing_image_downloader.__main__ import main

    sys.argv = ["bing_image_downloader", query, "--limit", str(limit), "--output-dir", folder]
    main()


def better_bing(query: str, folder: str, limit: int, threads: int) -> None:
    """Run the command line of better-bing-image-downloader."""
    from better_bing_image_downloader.download import main

    sys.argv = ["bbid", query, "-l", str(limit), "-d", folder, "-w", str(threads)]
    main()


def icrawler(query: str, folder: str, limit: int, threads: int) -> None:
    """Run icrawler's Bing crawler as its README does; it has no command line."""
    from icrawler.builtin import BingImageCrawler

    crawler = BingImageCrawler(downloader_threads=threads, storage={"root_dir": folder})
    crawler.crawl(keyword=query, max_num=limit)


TOOLS = {
    "bing-image-downloader": bing_image_downloader,
    "better-bing-image-downloader": better_bing,
    "icrawler": icrawler,
}


if __name__ == "__main__":
    send_elsewhere(sys.argv[2])
    TOOLS[sys.argv[1]](sys.argv[3], sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
