#!/bin/sh
# Have a Prometheus and its promtool for the tests of the alert rules and the dashboard. They are the distribution's,
# unpacked into a folder and not installed: no service is started.
set -eu

folder=$1
if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    mkdir -p "$folder"
    apt-get update -qq
    # Into a folder that apt's own user may write to.
    there=$(mktemp -d)
    chmod 755 "$there"
    (cd "$there" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null && dpkg-deb -x ./*.deb .)
    mv "$there/usr/bin/prometheus" "$there/usr/bin/promtool" "$folder/"
    rm -rf "$there"
    exit 0
fi
echo "The tests need Prometheus and promtool on PATH. On Debian: apt-get install prometheus" >&2
exit 1
