import anyio, cProfile, pstats, sys
from benchmarks.transport import clients, URL
async def main():
    c = clients("httpx2")[sys.argv[1]]
    for _ in range(200): await c.get(URL)
    p = cProfile.Profile(); p.enable()
    for _ in range(2000): await c.get(URL)
    p.disable()
    pstats.Stats(p).sort_stats("cumtime").print_stats("anythrottle|contextlib|weakref|wt-http|models.py|urls|urlparse")
anyio.run(main)
