# One image for every way of docs/cluster.md to start a run; it holds no data and no weights.
#
#   docker build --tag vdvae_lr .                     for NVIDIA cards
#   docker build --tag vdvae_lr:cpu --target cpu .    for none
#
# Plain Debian: PyTorch's wheels bring CUDA, cuDNN and NCCL, and the host brings the driver. The CUDA of an nvidia/cuda
# base would be a second one that nothing loads. Open MPI is the wheel that the `mpi` extra installs.
ARG BASE=debian:bookworm-20260824-slim

FROM ${BASE} AS system
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# g++ and python3-dev: --compile builds C++ and C while it runs. ibverbs: NCCL loads them where there is InfiniBand, and
# without them goes over Ethernet. openssh: Open MPI reaches other pods and nodes through it. No versions: Debian keeps
# only the newest build of a package, and a pinned one would soon not be found.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        g++ ibverbs-providers libibverbs1 openssh-client openssh-server python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM system AS install
WORKDIR /opt/vdvae_lr
# Only what the dependencies follow from: a change of the code installs nothing again.
COPY setup.py pyproject.toml ./
COPY scripts/install.sh scripts/
COPY vdvae_lr/__init__.py vdvae_lr/
# A virtual environment, for pip may not install into Debian's own Python (PEP 668).
ENV VENV=/opt/venv EXTRAS=mpi PIP_NO_CACHE_DIR=1

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
# /runs is a volume's place; `runs`, the default of --save_dir, leads there too. In `models` bundled weights are looked
# for, before names of published ones.
RUN useradd --uid 1000 --create-home vdvae \
    && install --directory --owner=vdvae --group=vdvae /runs \
    && ln --symbolic /runs runs \
    && mkdir models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# A number, which lets Kubernetes see that it is not root's.
USER 1000:1000
ENTRYPOINT ["python", "train.py"]

FROM runtime AS cpu
COPY --from=install-cpu /opt/venv /opt/venv
HEALTHCHECK --interval=5m --timeout=30s --start-period=1m CMD ["vdvae-lr", "--version"]

# The last stage is what `docker build` makes when no target is named.
FROM runtime AS gpu
COPY --from=install-gpu /opt/venv /opt/venv
# What the NVIDIA container toolkit, and enroot, read: the cards, and nvidia-smi beside CUDA.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
# A card that fell off the bus makes nvidia-smi fail; asking it costs no memory of the card.
HEALTHCHECK --interval=5m --timeout=60s --start-period=1m \
    CMD ["/bin/bash", "-o", "pipefail", "-c", "nvidia-smi --list-gpus | grep '^GPU '"]
