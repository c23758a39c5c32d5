#include <errno.h>
#include <json-c/json_object.h>
#include <strings.h>

#include "base/str.h"
#include "cli/spec.h"
#include "codec/json.h"

static int check_stream(const char *value, struct err *err)
{
        if (strcasecmp(value, "stdin") == 0 || strcasecmp(value, "stdout") == 0 ||
            strcasecmp(value, "stderr") == 0)
                return 0;
        return err_plain(err, EINVAL, "valid streams are STDIN, STDOUT and STDERR");
}

static int check_mount(const char *value, struct err *err)
{
        auto_json ignored = NULL;
        return spec_mount(value, &ignored, err);
}

static int check_ulimit(const char *value, struct err *err)
{
        auto_json ignored = NULL;
        return spec_ulimit(value, &ignored, err);
}

static int check_pair(const char *value, struct err *err)
{
        const char *equals = strchr(value, '=');
        if (!equals || equals == value)
                return err_plain(err, EINVAL, "must be KEY=VALUE");
        return 0;
}

static int check_path_pair(const char *value, struct err *err)
{
        const char *colon = strrchr(value, ':');
        uint64_t bytes;
        if (!colon || !str_starts(value, "/") || str_to_size(colon + 1, &bytes) < 0)
                return err_plain(err, EINVAL, "must be /DEVICE:NUMBER");
        return 0;
}

#define TEXT(long_name, text)                                                                      \
        {                                                                                          \
                .name = long_name, .kind = OPTION_TEXT, .help = text                               \
        }
#define LIST(long_name, text)                                                                      \
        {                                                                                          \
                .name = long_name, .kind = OPTION_LIST, .help = text                               \
        }
#define BOOL(long_name, text)                                                                      \
        {                                                                                          \
                .name = long_name, .kind = OPTION_BOOL, .help = text                               \
        }
#define INT(long_name, text)                                                                       \
        {                                                                                          \
                .name = long_name, .kind = OPTION_INT, .help = text                                \
        }
#define MAP(long_name, text)                                                                       \
        {                                                                                          \
                .name = long_name, .kind = OPTION_LIST, .word = "map", .help = text,               \
                .check = check_pair                                                                \
        }

const struct option run_options[RUN_OPTIONS_LENGTH] = {
        /* --- only run --- */
        { .name = "detach",
          .letter = 'd',
          .kind = OPTION_BOOL,
          .help = "Leave the container running in the background and print its ID" },
        TEXT("detach-keys", "Keys that leave the container's terminal (ctrl-p,ctrl-q)"),
        { .name = "sig-proxy",
          .kind = OPTION_BOOL,
          .initial = "true",
          .help = "Pass signals on to the process" },

        /* --- run and create --- */
        LIST("add-host", "A line for /etc/hosts (HOST:IP)"),
        MAP("annotation", "An annotation for the OCI runtime"),
        { .name = "attach",
          .letter = 'a',
          .kind = OPTION_LIST,
          .help = "Attach STDIN, STDOUT or STDERR",
          .check = check_stream,
          .completion = COMPLETE_WORDS,
          .words = "stdin stdout stderr" },
        { .name = "blkio-weight-device",
          .kind = OPTION_LIST,
          .help = "Block I/O weight for a device (/DEVICE:WEIGHT)",
          .check = check_path_pair },
        LIST("cap-add", "Add a capability"),
        LIST("cap-drop", "Drop a capability"),
        TEXT("cgroup-parent", "Parent cgroup of the container"),
        { .name = "cgroupns",
          .kind = OPTION_TEXT,
          .help = "Cgroup namespace: 'host' or 'private'",
          .completion = COMPLETE_WORDS,
          .words = "host private" },
        { .name = "cidfile",
          .kind = OPTION_TEXT,
          .help = "Write the container's ID to this file",
          .completion = COMPLETE_FILE },
        { .name = "cpu",
          .kind = OPTION_TEXT,
          .help = "Processor of a virtual machine: 'auto', 'kvm', 'soft'",
          .completion = COMPLETE_WORDS,
          .words = "auto kvm soft" },
        { .name = "cpu-model",
          .kind = OPTION_TEXT,
          .help = "What that processor has: 'host', 'x86-64', 'x86-64-v2', 'x86-64-v3'",
          .completion = COMPLETE_WORDS,
          .words = "host x86-64 x86-64-v2 x86-64-v3" },
        LIST("device", "Give a device of the host to the container"),
        LIST("device-cgroup-rule", "Allow devices by a cgroup rule ('c 1:3 rwm')"),
        { .name = "device-read-bps",
          .kind = OPTION_LIST,
          .help = "Limit reading from a device (/DEVICE:BYTES a second)",
          .check = check_path_pair },
        { .name = "device-read-iops",
          .kind = OPTION_LIST,
          .help = "Limit reads from a device (/DEVICE:OPERATIONS a second)",
          .check = check_path_pair },
        { .name = "device-write-bps",
          .kind = OPTION_LIST,
          .help = "Limit writing to a device (/DEVICE:BYTES a second)",
          .check = check_path_pair },
        { .name = "device-write-iops",
          .kind = OPTION_LIST,
          .help = "Limit writes to a device (/DEVICE:OPERATIONS a second)",
          .check = check_path_pair },
        LIST("dns", "A name server"),
        LIST("dns-option", "An option for resolv.conf"),
        LIST("dns-search", "A search domain"),
        TEXT("domainname", "NIS domain name"),
        TEXT("entrypoint", "Replace the image's ENTRYPOINT"),
        { .name = "env", .letter = 'e', .kind = OPTION_LIST, .help = "Set environment variables" },
        { .name = "env-file",
          .kind = OPTION_LIST,
          .help = "Read environment variables from a file",
          .completion = COMPLETE_FILE },
        LIST("expose", "Declare a port or a range of ports"),
        LIST("group-add", "A further group of the process"),
        TEXT("health-cmd", "Command that checks health"),
        { .name = "health-interval",
          .kind = OPTION_DURATION,
          .help = "Time between checks (ms|s|m|h)" },
        INT("health-retries", "Failures in a row that mean unhealthy"),
        { .name = "health-start-interval",
          .kind = OPTION_DURATION,
          .help = "Time between checks during the start period (ms|s|m|h)" },
        { .name = "health-start-period",
          .kind = OPTION_DURATION,
          .help = "Time to start before failures count (ms|s|m|h)" },
        { .name = "health-timeout",
          .kind = OPTION_DURATION,
          .help = "Longest time one check may take (ms|s|m|h)" },
        { .name = "hostname", .letter = 'h', .kind = OPTION_TEXT, .help = "Host name" },
        BOOL("init", "Run an init that passes signals on and reaps processes"),
        { .name = "interactive",
          .letter = 'i',
          .kind = OPTION_BOOL,
          .help = "Keep standard input open even if not attached" },
        TEXT("ip", "IPv4 address"),
        TEXT("ip6", "IPv6 address"),
        TEXT("ipc", "IPC namespace: 'private', 'shareable', 'host', 'container:NAME'"),
        TEXT("isolation", "Isolation: 'default', a container; 'vm', a virtual machine"),
        { .name = "label", .letter = 'l', .kind = OPTION_LIST, .help = "Set a label" },
        { .name = "label-file",
          .kind = OPTION_LIST,
          .help = "Read labels from a file, one a line",
          .completion = COMPLETE_FILE },
        LIST("link", "Links are not supported"),
        { .name = "log-driver",
          .kind = OPTION_TEXT,
          .help = "Where output is kept: 'json-file' or 'none'",
          .completion = COMPLETE_WORDS,
          .words = "json-file none" },
        { .name = "log-opt",
          .kind = OPTION_LIST,
          .help = "Options of the log driver, such as max-size=10m",
          .check = check_pair },
        TEXT("mac-address", "MAC address"),
        { .name = "memory-swappiness",
          .kind = OPTION_INT,
          .initial = "-1",
          .help = "How readily memory is swapped (0 to 100)" },
        { .name = "mount",
          .kind = OPTION_LIST,
          .word = "mount",
          .help = "Attach a filesystem: type=bind|volume|tmpfs,src=…,dst=…[,readonly]",
          .check = check_mount },
        { .name = "name", .kind = OPTION_TEXT, .help = "Name of the container" },
        { .name = "network",
          .kind = OPTION_LIST,
          .word = "network",
          .help = "Connect to a network: 'none' or 'host' so far",
          .completion = COMPLETE_WORDS,
          .words = "none host" },
        { .name = "net",
          .kind = OPTION_LIST,
          .help = "The same as --network",
          .flags = OPTION_HIDDEN },
        LIST("network-alias", "A further name in the network"),
        BOOL("no-healthcheck", "Ignore the image's HEALTHCHECK"),
        BOOL("oom-kill-disable", "Do not kill the container's processes when memory runs out"),
        INT("oom-score-adj", "The host's preference when memory runs out (-1000 to 1000)"),
        TEXT("pid", "PID namespace: 'host', 'container:NAME'"),
        TEXT("platform", "Platform of the image, where it has several (OS/ARCH)"),
        BOOL("privileged", "Give the container all privileges of the host"),
        { .name = "publish",
          .letter = 'p',
          .kind = OPTION_LIST,
          .help = "Publish a port ([[IP:]HOST:]CONTAINER[/PROTOCOL])" },
        { .name = "publish-all",
          .letter = 'P',
          .kind = OPTION_BOOL,
          .help = "Publish all exposed ports" },
        { .name = "pull",
          .kind = OPTION_TEXT,
          .initial = "missing",
          .help = "When to pull the image: 'always', 'missing', 'never'",
          .completion = COMPLETE_WORDS,
          .words = "always missing never" },
        { .name = "quiet",
          .letter = 'q',
          .kind = OPTION_BOOL,
          .help = "Pull without showing progress" },
        BOOL("read-only", "Mount the root filesystem read-only"),
        BOOL("rm", "Remove the container and its anonymous volumes when it exits"),
        TEXT("runtime", "OCI runtime"),
        LIST("security-opt", "Security options: seccomp=FILE|unconfined, no-new-privileges, …"),
        { .name = "shm-size", .kind = OPTION_BYTES, .help = "Size of /dev/shm" },
        TEXT("stop-signal", "Signal that asks the process to end"),
        INT("stop-timeout", "Seconds before a stop becomes a kill"),
        MAP("storage-opt", "Options of the storage driver"),
        MAP("sysctl", "Kernel parameters of the container's namespaces"),
        LIST("tmpfs", "Mount a tmpfs (PATH[:OPTIONS])"),
        { .name = "tty", .letter = 't', .kind = OPTION_BOOL, .help = "Allocate a terminal" },
        { .name = "ulimit",
          .kind = OPTION_LIST,
          .word = "ulimit",
          .help = "Resource limit (NAME=SOFT[:HARD])",
          .check = check_ulimit },
        { .name = "user",
          .letter = 'u',
          .kind = OPTION_TEXT,
          .help = "User and group of the process (NAME|UID[:GROUP|GID])" },
        TEXT("userns", "User namespace: 'host'"),
        TEXT("uts", "UTS namespace: 'host'"),
        { .name = "volume",
          .letter = 'v',
          .kind = OPTION_LIST,
          .help = "Mount a directory or volume (SOURCE:TARGET[:ro])",
          .completion = COMPLETE_DIRECTORY },
        BOOL("vm", "Run in a virtual machine: short for --isolation vm"),
        { .name = "vm-rootfs",
          .kind = OPTION_TEXT,
          .help = "Root file system of a virtual machine: 'fs', 'erofs'",
          .completion = COMPLETE_WORDS,
          .words = "erofs fs" },
        TEXT("volume-driver", "Driver of volumes made for this container"),
        { .name = "volumes-from",
          .kind = OPTION_LIST,
          .help = "Mount what another container has mounted",
          .completion = COMPLETE_CONTAINER },
        { .name = "workdir",
          .letter = 'w',
          .kind = OPTION_TEXT,
          .help = "Working directory in the container" },

        /* --- run, create and update --- */
        INT("blkio-weight", "Block I/O weight (10 to 1000, 0 for none)"),
        INT("cpu-period", "Period of the CPU limit in microseconds"),
        INT("cpu-quota", "CPU time per period in microseconds"),
        INT("cpu-rt-period", "Period of the real-time limit in microseconds"),
        INT("cpu-rt-runtime", "Real-time CPU time per period in microseconds"),
        { .name = "cpu-shares",
          .letter = 'c',
          .kind = OPTION_INT,
          .help = "Weight among competing containers" },
        { .name = "cpus", .kind = OPTION_DECIMAL, .help = "How many CPUs' worth of time" },
        TEXT("cpuset-cpus", "CPUs to run on (0-3, 0,1)"),
        TEXT("cpuset-mems", "Memory nodes to use (0-3, 0,1)"),
        { .name = "memory", .letter = 'm', .kind = OPTION_BYTES, .help = "Memory limit" },
        { .name = "memory-reservation", .kind = OPTION_BYTES, .help = "Soft memory limit" },
        { .name = "memory-swap",
          .kind = OPTION_BYTES,
          .help = "Limit of memory and swap together; -1 for none" },
        INT("pids-limit", "How many processes there may be; -1 for any number"),
        { .name = "restart",
          .kind = OPTION_TEXT,
          .help = "When to start again: 'no', 'on-failure[:N]', 'always', 'unless-stopped'",
          .completion = COMPLETE_WORDS,
          .words = "no on-failure always unless-stopped" },
        { 0 },
};
