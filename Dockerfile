# A worker image. PyPI's torch includes CUDA. For a smaller image without it:
# --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu
FROM python:3.12.12-slim-bookworm AS build
ARG TORCH_INDEX=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/autoseq
ENV PATH=/opt/autoseq/bin:$PATH
WORKDIR /src
COPY constraints.txt ./
RUN pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch==2.13.0
COPY pyproject.toml README.md autosequence.py ./
COPY recipes recipes
COPY core core
COPY storage storage
COPY worker worker
RUN pip install -c constraints.txt ".[model]"

FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 1000 autoseq
COPY --from=build /opt/autoseq /opt/autoseq
COPY models /srv/models
ENV PATH=/opt/autoseq/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    AUTOSEQ_MODEL=/srv/models/tiny-bagel
USER autoseq
WORKDIR /srv
# On SIGTERM the worker ends its step, gives its run back and leaves.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD celery -A worker inspect ping -d "celery@$HOSTNAME" --timeout 8 || exit 1
CMD ["celery", "-A", "worker", "worker", "--loglevel", "INFO"]
