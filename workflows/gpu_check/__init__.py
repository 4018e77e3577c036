"""`make gpu-check`, `srpo doctor --gpu`: what this project does on a GPU, in stages that each stand alone.

    core     the loss and its kernels, with torch alone
    worker   the real worker's step in bf16 with FSDP2 and an offloaded teacher, without Ray or vLLM
    stack    GRPO, SDPO and SRPO through verl, Ray and vLLM; a kill and a resume
    demo     `srpo demo`

The result is a JSON file and a Markdown page (docs/hardware/README.md). `--platform cpu` is a rehearsal.
"""
