#!/bin/sh
# Prepares the root of the image: system.sh
#
# Installs what the service needs of Debian, makes its user, and takes the set-id bits away:
# nobody in the image has anything to gain by them.
set -eu
umask 022
if [ "$0" != /container/system.sh ]; then
  echo "system.sh: changes the whole root: for the build of an image only" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}"

apt-get update -q
apt-get install -q -y --no-install-recommends ca-certificates python3 tini
groupadd --gid 10001 samovar
useradd --uid 10001 --gid samovar --no-create-home --home-dir /var/lib/samovar \
  --shell /usr/sbin/nologin samovar
install -d -m 0700 -o samovar -g samovar /var/lib/samovar

find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# What differs from one build to the next and is of no use; the directories stay for whoever
# installs more.
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old \
  /var/cache/ldconfig/aux-cache /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
find /var/log -type f -delete
