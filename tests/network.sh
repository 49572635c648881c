#!/bin/sh
# Have what the tests need that break a network of their own: namespaces and a firewall. Where they can't be had, those
# tests are skipped and say why.
set -eu

missing=""
for name in ip iptables nft; do
    command -v "$name" >/dev/null || missing="$missing $name"
done
if [ -z "$missing" ]; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends iproute2 iptables nftables >/dev/null
    exit 0
fi
echo "Tests with networks of their own are skipped: root and$missing are needed" >&2
