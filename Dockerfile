# One image for every way to start a run in docs/cluster.md. It contains neither data nor weights.
#
#   docker build --tag vdvae_lr .                     for NVIDIA GPUs
#   docker build --tag vdvae_lr:cpu --target cpu .    for machines without a GPU
#   docker build --build-arg EXTRAS=mpi,hub-data,wandb --tag vdvae_lr .    with more of the extras in setup.py
#
# The base is plain Debian. PyTorch's wheels bring CUDA, cuDNN and NCCL, and the host brings the driver. An nvidia/cuda
# base would add a second CUDA that nothing loads. Open MPI is the wheel that the `mpi` extra installs.
ARG BASE=debian:bookworm-20260824-slim

FROM ${BASE} AS system
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# g++ and python3-dev: --compile builds C++ and C while it runs. ibverbs: NCCL needs them to use InfiniBand, and uses
# Ethernet without them. openssh: Open MPI reaches other pods and nodes through it. Versions are not pinned: Debian keeps
# only the newest build of a package, so a pinned build would soon be missing.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        g++ ibverbs-providers libibverbs1 openssh-client openssh-server python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM system AS install
WORKDIR /opt/vdvae_lr
# Copy only the files that define the dependencies, so that a change of the code does not install them again.
COPY setup.py pyproject.toml ./
COPY scripts/install.sh scripts/
COPY vdvae_lr/__init__.py vdvae_lr/
# Use a virtual environment, because pip may not install into Debian's own Python (PEP 668).
ARG EXTRAS=mpi
ENV VENV=/opt/venv EXTRAS=${EXTRAS} PIP_NO_CACHE_DIR=1

FROM install AS install-gpu
ARG TORCH=torch==2.13.0
RUN scripts/install.sh

FROM install AS install-cpu
ARG TORCH=torch==2.13.0+cpu
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN scripts/install.sh

FROM system AS runtime
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vdvae_lr" \
    org.opencontainers.image.description="Hierarchical VAEs fine-tuned with Latent Reconstruction" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.base.name="${BASE}"
WORKDIR /opt/vdvae_lr
COPY . .
COPY scripts/cluster/kubernetes/ssh_config /etc/ssh/ssh_config.d/vdvae_lr.conf
# /runs is the place for a volume. `runs`, the default of --save_dir, is a link to it. The program looks in `models` for
# bundled weights before it tries the names of published ones.
RUN useradd --uid 1000 --create-home vdvae \
    && install --directory --owner=vdvae --group=vdvae /runs \
    && ln --symbolic /runs runs \
    && mkdir models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# A numeric user lets Kubernetes check that it is not root.
USER 1000:1000
ENTRYPOINT ["python", "train.py"]

FROM runtime AS cpu
COPY --from=install-cpu /opt/venv /opt/venv
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m CMD ["vdvae-lr", "--version"]

# The last stage is what `docker build` makes when no target is named.
FROM runtime AS gpu
COPY --from=install-gpu /opt/venv /opt/venv
# The NVIDIA container toolkit and enroot read these variables: all GPUs, with CUDA and nvidia-smi.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# nvidia-smi fails if a GPU has fallen off the bus. The check uses no GPU memory.
HEALTHCHECK --interval=5m --timeout=60s --start-period=1m \
    CMD ["/bin/bash", "-o", "pipefail", "-c", "nvidia-smi --list-gpus | grep '^GPU '"]
