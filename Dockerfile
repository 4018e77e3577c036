# srpo_verl on verl's own image for vLLM 0.24: CUDA 13, torch 2.11, flash-attn, Python 3.12; verl itself is not in it.
#   docker build -t srpo_verl . && docker run --gpus all --shm-size=16g -v $PWD/runs:/srpo_verl/runs srpo_verl srpo doctor
FROM verlai/verl:vllm024.dev2@sha256:b867883b0dd011363e69ab2ab344922a28c5bd0409e2a324e3ee70fb27ca7543
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /srpo_verl
ENV PIP_BREAK_SYSTEM_PACKAGES=1
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY srpo_verl srpo_verl
COPY reward_fns reward_fns
COPY workflows workflows
COPY hydra_plugins hydra_plugins
COPY examples examples
COPY tests tests
# The versions of gpu.txt hold torch and vLLM where they are; hashes and extras are nothing for a constraint.
RUN grep -oE '^[A-Za-z0-9._-]+(\[[a-z,-]+\])?==[^ ]+( ; [^\\]+)?' requirements/gpu.txt | sed -E 's/\[[a-z,-]+\]//' > /tmp/constraints.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/constraints.txt -e '.[examples]' hypothesis pytest-timeout \
    && python3 -c "import torch, vllm; assert (torch.__version__.split('+')[0], vllm.__version__) == ('2.11.0', '0.24.0')" \
    && python3 -c "import verl; assert verl.__version__ == '0.9.1'"
CMD ["srpo", "doctor"]
