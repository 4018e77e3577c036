from workflows.gpu_check.command import app

app()
