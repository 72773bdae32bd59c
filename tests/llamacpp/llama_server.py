"""A program with the options of `llama-server` that this project passes, and llama.cpp's real server behind them."""

import argparse
import os
import signal
import sys
from pathlib import Path

import xllamacpp

parser = argparse.ArgumentParser(exit_on_error=False)
for option in ("--model", "--alias", "--host"):
    parser.add_argument(option, required=True)
for option in ("--port", "--ctx-size", "--parallel", "--threads", "--log-verbosity", "--seed"):
    parser.add_argument(option, type=int, default=1)
parser.add_argument("--lora", action="append", default=[])
parser.add_argument("--lora-init-without-apply", action="store_true")

Path(__file__).with_name("arguments").write_text(" ".join(sys.argv[1:]))
Path(__file__).with_name("pid").write_text(str(os.getpid()))
args, unknown = parser.parse_known_args()
if unknown or (args.lora and not args.lora_init_without_apply):
    sys.exit(3)
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = args.model, {args.alias}
params.hostnames, params.port = [args.host], args.port
params.n_ctx, params.n_parallel, params.fit_params = args.ctx_size, args.parallel, False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
params.verbosity, params.ui = args.log_verbosity, False
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 0.0) for path in args.lora]
server = xllamacpp.Server(params)
signal.pause()
