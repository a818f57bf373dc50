# Debian's Prometheus, where the official image cannot be pulled.
FROM docker.io/library/python:3.11-slim-bookworm
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus && rm -rf /var/lib/apt/lists/* \
    && install -d -o nobody -g nogroup /prometheus
VOLUME /prometheus
USER nobody
EXPOSE 9090
ENTRYPOINT ["prometheus"]
