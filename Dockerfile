# A worker image in four layers, by how often they change: torch, the other dependencies, the models, the code. The
# first two come from requirements/, by hash. PyPI's torch includes CUDA. For a smaller image without it:
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG PYTHON=python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c
FROM ${PYTHON} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PATH=/opt/autoseq/bin:$PATH
RUN python -m venv /opt/autoseq

FROM base AS code
WORKDIR /src
COPY pyproject.toml README.md LICENSE autosequence.py ./
COPY recipes recipes
COPY core core
COPY storage storage
COPY worker worker
RUN pip install --no-deps --prefix /opt/code .

FROM base
ARG TORCH_INDEX=""
RUN useradd --create-home --uid 1000 autoseq \
    && install --directory --owner autoseq --group autoseq /var/cache/autosequence
# Triton compiles the launch of its kernels at run time.
RUN if [ -z "$TORCH_INDEX" ]; then apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*; fi
COPY requirements/torch.txt constraints.txt /opt/requirements/
# The CPU builds have hashes that PyPI does not list, so these are installed by version alone.
RUN if [ -n "$TORCH_INDEX" ]; \
    then pip install -c /opt/requirements/constraints.txt --extra-index-url "$TORCH_INDEX" torch; \
    else pip install --require-hashes -r /opt/requirements/torch.txt; fi
COPY requirements/worker.txt /opt/requirements/
RUN pip install --require-hashes --no-deps -r /opt/requirements/worker.txt
COPY models /srv/models
COPY --from=code /opt/code /opt/autoseq
ENV PYTHONUNBUFFERED=1 \
    AUTOSEQ_MODEL=/srv/models/tiny-bagel \
    AUTOSEQ_CACHE_DIR=/var/cache/autosequence \
    AUTOSEQ_SPOOL_DIR=/var/cache/autosequence \
    AUTOSEQ_HEALTH_FILE=/tmp/autoseq-health.json \
    TRITON_CACHE_DIR=/var/cache/autosequence/triton
USER autoseq
WORKDIR /srv
# On SIGTERM the worker ends its step, gives its run back and leaves.
STOPSIGNAL SIGTERM
# Liveness of this process alone; `autoseq health --ready` also asks Redis and S3.
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 CMD ["autoseq", "health"]
CMD ["celery", "-A", "worker", "worker", "--loglevel", "INFO"]
