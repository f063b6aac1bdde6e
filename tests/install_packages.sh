#!/bin/sh
# Install the Debian packages that some tests need. Do nothing where that is impossible: those tests then skip.
#
#   faketime   the wall clock steps while the monotonic clock goes on
#   tmux       a terminal that a test can type into and read
set -u
wanted="faketime tmux"
missing=""
for package in $wanted; do
  command -v "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null 2>&1; then
  echo "without the Debian packages$missing: only root can install them with apt-get"
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # one word a package
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing
} >/dev/null 2>&1 || echo "without the Debian packages$missing: apt-get cannot install them"
exit 0
