"""Run an example as its author would, on another port: `python run_example.py PORT EXAMPLE.py [ARGUMENT ...]`."""

import runpy
import sys

import uvicorn

run = uvicorn.run
port, path = int(sys.argv[1]), sys.argv[2]
uvicorn.run = lambda app, **config: run(app, **(config | {"port": port}))
sys.argv = sys.argv[2:]
runpy.run_path(path, run_name="__main__")
