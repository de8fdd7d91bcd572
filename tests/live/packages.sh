#!/usr/bin/env bash
# System packages for the live tests: chromium (UI), radosgw and ceph (S3),
# postgresql.
# Installs what is missing where apt-get may be run; elsewhere it says what tests will skip.
set -euo pipefail

need=()
command -v chromium >/dev/null || need+=(chromium)
command -v radosgw >/dev/null || need+=(radosgw ceph-mon ceph-osd)
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || need+=(postgresql)
((${#need[@]})) || exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing ${need[*]} ..."
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
else
    echo "Not installed: ${need[*]}. Tests that need them are skipped; install them as root with apt-get."
fi
