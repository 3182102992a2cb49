# Meeboter's images, by the classic builder or BuildKit:
#   docker build --target server -t meeboter-server .
#   docker build --target bot -t meeboter-bot .
# The bot's is one for all platforms; it is published under a name for each.

ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:trixie-slim

# Compiles both programs. The base must not be older than what compiles: it brings the C library.
FROM ${RUST_IMAGE} AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --package meeboter --package meeboter-bot --bins \
    && install -D --target-directory=/out target/release/meeboter target/release/meeboter-bot

# What the server calls: ffmpeg and ffprobe join recordings; pg_dump and pg_restore are for backups. Their packages bring half a
# gigabyte of which they load a third, so that just the programs and the libraries they load are taken.
FROM ${BASE_IMAGE} AS programs
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ffmpeg postgresql-client \
    && mkdir -p /programs/bin /programs/lib \
    && cp --dereference /usr/bin/ffmpeg /usr/bin/ffprobe \
        /usr/lib/postgresql/*/bin/pg_dump /usr/lib/postgresql/*/bin/pg_restore /programs/bin/ \
    && ldd /programs/bin/* | awk '$2 == "=>" { print $1, $3 }' | sort --unique | while read -r name path; do \
        case $name in \
            # The C library is the base's own.
            libc.so.* | libm.so.* | libmvec.so.* | libresolv.so.* | librt.so.* | libdl.so.* | libpthread.so.*) ;; \
            *) cp --dereference "$path" "/programs/lib/$name" ;; \
        esac; \
    done

FROM ${BASE_IMAGE} AS server
# Coolify's own health check calls curl inside the container too.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/meeboter --create-home meeboter
COPY --from=programs /programs/ /usr/local/
COPY --from=build /out/meeboter /usr/local/bin/
RUN ldconfig
USER meeboter
# The first API key and what is being joined; recordings too, where no object store is configured.
ENV MEEBOTER_DATA_DIR=/var/lib/meeboter
VOLUME /var/lib/meeboter
EXPOSE 3000
# A standby is healthy too; that it leads is another question (/readyz).
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=3 \
    CMD curl --fail --silent --show-error --max-time 3 --output /dev/null \
        "http://127.0.0.1:${MEEBOTER_SERVER__PORT:-3000}/healthz"
ENTRYPOINT ["meeboter"]
CMD ["serve"]

FROM ${BASE_IMAGE} AS bot
# parec (pulseaudio-utils) hears silence; fonts let pages show names in most scripts.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        ca-certificates chromium ffmpeg pulseaudio pulseaudio-utils tini xvfb \
        fonts-dejavu-core fonts-noto-color-emoji fonts-wqy-zenhei \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && useradd --system --uid 10001 --user-group --home-dir /home/bot --create-home bot \
    && mkdir -p --mode=1777 /tmp/.X11-unix \
    # Chromium puts its pages into namespaces of their own where the engine lets it. Most do not; --test-type keeps the
    # bar that warns of it out of the picture.
    && echo 'unshare --user true 2>/dev/null || CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox --test-type"' \
        >/etc/chromium.d/sandbox
COPY --from=build /out/meeboter-bot /usr/local/bin/
USER bot
WORKDIR /home/bot
# What a bot started and left is waited for by tini, and ends with the container.
ENTRYPOINT ["tini", "--", "meeboter-bot"]
