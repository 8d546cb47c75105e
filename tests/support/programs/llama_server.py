"""Runs llama.cpp's own server of the package xllamacpp: ``python llama_server.py FILE PORT``."""

from __future__ import annotations

import sys
import threading

import xllamacpp

parameters = xllamacpp.CommonParams()
parameters.model.path = sys.argv[1]
parameters.hostnames, parameters.port = ["127.0.0.1"], int(sys.argv[2])
parameters.n_parallel, parameters.n_ctx = 4, 4 * 2048
parameters.verbosity, parameters.fit_params, parameters.endpoint_metrics = -1, False, True
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
running = xllamacpp.Server(parameters)
threading.Event().wait()
