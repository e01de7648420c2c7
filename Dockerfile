# docker build -t statsd-fast .
# docker run -p 8125:8125/udp -p 8125:8125/tcp -v "$PWD/config.js:/etc/statsd-fast/config.js:ro" statsd-fast
#
# The admin interface (8126) listens on the container's own loopback unless mgmt_address says otherwise. A
# receive buffer beyond the host's net.core.rmem_max needs --cap-add NET_ADMIN and --user 0, and in the
# configuration user: 8125, group: 8125, so that it is root only until its sockets are bound.
FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin statsd-fast

FROM debian:bookworm-slim
# The authorities that https is checked against; the slim image has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/statsd-fast /usr/bin/statsd-fast
COPY packaging/config.js /etc/statsd-fast/config.js
# Of no entry in /etc/passwd, and by number, so that it can be seen not to be root.
USER 8125:8125
EXPOSE 8125/udp 8125/tcp 8126/tcp
STOPSIGNAL SIGTERM
ENTRYPOINT ["statsd-fast"]
CMD ["/etc/statsd-fast/config.js"]
