"""Environment variables of a run on a machine without a GPU."""

# Of the processes that vLLM runs in. vLLM binds threads per NUMA node and TP rank, which puts all replicas on the same
# cores; one OpenMP thread per process, since throughput collapses when several processes share the cores. oneDNN keeps
# the code it has compiled for each number of tokens and each layer shape, 0.4 MiB apiece; batches of rollouts differ at
# every step, so its own 1024 are 400 MiB that fill slowly. 64 cost no time: a forward pass needs about five.
ROLLOUT_ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
}
# Of every process of a run.
CPU_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", **ROLLOUT_ENVIRONMENT}
