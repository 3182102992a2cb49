# Makes what `debian:SUITE-slim` is, as the archive $2, of the suite $1: the smallest Debian, without documents, that
# unpacks packages without waiting for the disk.
set -eu
suite=$1 archive=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$folder/root
debootstrap --variant=minbase "$suite" "$root" http://deb.debian.org/debian
cat >"$root/etc/apt/sources.list" <<END
deb http://deb.debian.org/debian $suite main
deb http://deb.debian.org/debian $suite-updates main
deb http://deb.debian.org/debian-security $suite-security main
END
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<END
force-unsafe-io
path-exclude /usr/share/doc/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
END
for place in usr/share/doc usr/share/info usr/share/locale usr/share/man var/cache/apt var/lib/apt/lists; do
    find "$root/$place" -mindepth 1 -delete
done
# Renamed into place: whoever finds it finds all of it.
tar --directory="$root" --create --file="$folder/archive.tar" .
mkdir -p "$(dirname "$archive")"
mv "$folder/archive.tar" "$archive.$$"
mv "$archive.$$" "$archive"
