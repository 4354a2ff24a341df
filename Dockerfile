# docker build -t lakeward .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
# The image's toolchain is the pinned one; without the file rustup has nothing to fetch.
RUN rm -f rust-toolchain.toml
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin lakeward \
 && install -D target/release/lakeward /out/lakeward \
 && strip /out/lakeward

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/*
# /var/lib/lakeward holds caches only (lake.state_dir); losing it costs time, never data.
RUN useradd --uid 10001 --user-group --home-dir /var/lib/lakeward --create-home --shell /usr/sbin/nologin lakeward \
 && install -d -o lakeward -g lakeward /etc/lakeward
COPY --from=build /out/lakeward /usr/local/bin/lakeward
USER lakeward
WORKDIR /var/lib/lakeward
VOLUME /var/lib/lakeward
EXPOSE 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["lakeward"]
CMD ["run", "--config", "/etc/lakeward/config.toml"]
