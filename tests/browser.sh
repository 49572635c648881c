#!/bin/sh
# Have a Chromium for the tests that look at pages. It is the distribution's: playwright brings no browser of its own here.
set -eu

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
    exit 0
fi
echo "The tests need a Chromium on PATH. Install one, on Debian as root by: apt-get install chromium" >&2
exit 1
