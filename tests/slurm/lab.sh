#!/usr/bin/env bash
# A real Slurm of one node on the loopback interface, for the tests: no systemd, no cgroups, no database server.
#   lab.sh up | down            its state lives in $SLURM_LAB (default /tmp/wsol-slurm-lab), its processes end by their pid files
# Needs root and Debian's slurmctld, slurmd, slurm-client and munge. /etc/slurm is its own: a cluster's real configuration is refused.
set -euo pipefail
lab=${SLURM_LAB:-/tmp/wsol-slurm-lab}
host=$(hostname -s)
folder=/etc/slurm # the default place: SLURM_CONF does not reach the steps that jobs start
mark="# written by wsol's tests/slurm/lab.sh"

configuration() {
    if [ -e "$folder/slurm.conf" ] && ! grep -qF "$mark" "$folder/slurm.conf"; then
        echo "$folder/slurm.conf is not the lab's: this machine belongs to a cluster, and the lab would break it" >&2
        exit 1
    fi
    mkdir -p "$lab"/{state,spool,log,munge} "$folder"
    chmod 711 "$lab/munge"
    [ -s "$lab/munge/key" ] || head -c 1024 /dev/urandom >"$lab/munge/key"
    chmod 400 "$lab/munge/key"
    # From 23.11 on Slurm can do without cgroups in so many words.
    local cgroup=disabled
    [[ "$(slurmctld -V)" =~ ^slurm(-wlm)?\ (2[0-2]|23\.02) ]] && cgroup=cgroup/v1
    echo "CgroupPlugin=$cgroup" >"$folder/cgroup.conf"
    printf "Name=gpu File=/dev/%s\n" null zero >"$folder/gres.conf" # two, enough to see who asks for one
    cat >"$folder/slurm.conf" <<CONF
$mark
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$lab/munge/socket
CredType=cred/munge
StateSaveLocation=$lab/state
SlurmdSpoolDir=$lab/spool
SlurmctldPidFile=$lab/slurmctld.pid
SlurmdPidFile=$lab/slurmd.pid
SlurmctldLogFile=$lab/log/slurmctld.log
SlurmdLogFile=$lab/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=0
AccountingStorageType=accounting_storage/none
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=2
InactiveLimit=0
DefMemPerCPU=500
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=${SLURM_LAB_CPUS:-4} RealMemory=${SLURM_LAB_MB:-32000} Gres=gpu:2 State=UNKNOWN
PartitionName=lab Nodes=ALL Default=YES MaxTime=2880 DefaultTime=10 State=UP
CONF
}

up() {
    configuration
    munged --force --key-file="$lab/munge/key" --socket="$lab/munge/socket" --pid-file="$lab/munge/pid" \
        --log-file="$lab/munge/log" --seed-file="$lab/munge/seed"
    slurmctld
    slurmd -N "$host"
    for _ in $(seq 100); do
        if sinfo -h -o %T 2>/dev/null | grep -qx idle; then return; fi
        sleep 0.1
    done
    echo "the node did not become idle" >&2
    tail -n 5 "$lab"/log/*.log >&2
    down
    return 1
}

down() {
    local file pid
    for file in slurmd.pid slurmctld.pid munge/pid; do
        [ -s "$lab/$file" ] || continue
        pid=$(cat "$lab/$file")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    done
    rm -rf "$lab"
    if grep -qsF "$mark" "$folder/slurm.conf"; then rm -f "$folder"/{slurm,cgroup,gres}.conf; fi
}

case ${1:-} in
    up) up ;;
    down) down ;;
    *) echo "usage: lab.sh up | down" >&2 && exit 2 ;;
esac
