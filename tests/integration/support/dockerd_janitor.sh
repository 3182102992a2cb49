# Waits until its input ends, then ends the Docker engine in the folder $0 and everything of it, and removes the folder.
read -r _
name=${0##*/}
export DOCKER_HOST="unix://$0/docker.sock" DOCKER_CONFIG="$0/config"

# The polite way first: it takes care of the containers' cgroups too.
containers=$(timeout 20 docker ps --all --quiet)
[ -n "$containers" ] && timeout 60 docker rm --force $containers
pid=$(cat "$0/pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ]; then
    kill -TERM "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -d "/proc/$pid" ] && sleep 0.2; done
fi

# Then whoever is left: the engine's own processes name the folder, a container's have their root in it.
for process in /proc/[0-9]*; do
    [ "$process" = "/proc/$$" ] && continue
    if tr '\0' ' ' <"$process/cmdline" | grep -Eq "^(dockerd|[^ ]*containerd[^ ]*) .*$0/" \
        || awk '$5 == "/"' "$process/mountinfo" | grep -q "/$name/"; then
        kill -KILL "${process#/proc/}"
    fi
done
awk -v folder="$0/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r -n 1 umount --lazy
rm -rf "$0"
