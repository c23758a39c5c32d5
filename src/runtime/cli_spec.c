/* spec features */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/json.h"
#include "oci/runtime_spec.h"
#include "runtime/cli.h"
#include "runtime/criu.h"
#include "runtime/mount_options.h"
#include "sys/caps.h"
#include "sys/cgroup.h"

/* The default specification is written with ' for ", which spec_text() turns round. */
static const char head[] =
        "{'ociVersion': '" OCI_RUNTIME_SPEC_VERSION "',"
        " 'process': {"
        "  'terminal': true,"
        "  'user': {'uid': 0, 'gid': 0},"
        "  'args': ['sh'],"
        "  'env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',"
        "          'TERM=xterm'],"
        "  'cwd': '/',"
        "  'capabilities': {"
        "   'bounding': ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],"
        "   'effective': ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE'],"
        "   'permitted': ['CAP_AUDIT_WRITE', 'CAP_KILL', 'CAP_NET_BIND_SERVICE']},"
        "  'rlimits': [{'type': 'RLIMIT_NOFILE', 'hard': 1024, 'soft': 1024}],"
        "  'noNewPrivileges': true},"
        " 'root': {'path': 'rootfs', 'readonly': true},"
        " 'hostname': 'isle',"
        " 'mounts': ["
        "  {'destination': '/proc', 'type': 'proc', 'source': 'proc', 'options': []},"
        "  {'destination': '/dev', 'type': 'tmpfs', 'source': 'tmpfs',"
        "   'options': ['nosuid', 'strictatime', 'mode=755', 'size=65536k']},"
        "  {'destination': '/dev/shm', 'type': 'tmpfs', 'source': 'shm',"
        "   'options': ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k']},"
        "  {'destination': '/dev/mqueue', 'type': 'mqueue', 'source': 'mqueue',"
        "   'options': ['nosuid', 'noexec', 'nodev']},";

static const char privileged[] =
        "  {'destination': '/dev/pts', 'type': 'devpts', 'source': 'devpts',"
        "   'options': ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']},"
        "  {'destination': '/sys', 'type': 'sysfs', 'source': 'sysfs',"
        "   'options': ['nosuid', 'noexec', 'nodev', 'ro']},"
        "  {'destination': '/sys/fs/cgroup', 'type': 'cgroup', 'source': 'cgroup',"
        "   'options': ['nosuid', 'noexec', 'nodev', 'relatime', 'ro']}],"
        " 'linux': {"
        "  'resources': {'devices': [{'allow': false, 'access': 'rwm'}]},"
        "  'namespaces': [{'type': 'pid'}, {'type': 'network'}, {'type': 'ipc'},"
        "                 {'type': 'uts'}, {'type': 'mount'}";

/* printf: user and group id */
static const char rootless_format[] =
        "  {'destination': '/dev/pts', 'type': 'devpts', 'source': 'devpts',"
        "   'options': ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620']},"
        "  {'destination': '/sys', 'type': 'none', 'source': '/sys',"
        "   'options': ['rbind', 'nosuid', 'noexec', 'nodev', 'ro']}],"
        " 'linux': {"
        "  'uidMappings': [{'containerID': 0, 'hostID': %u, 'size': 1}],"
        "  'gidMappings': [{'containerID': 0, 'hostID': %u, 'size': 1}],"
        "  'namespaces': [{'type': 'pid'}, {'type': 'ipc'}, {'type': 'uts'}, {'type': 'mount'},"
        "                 {'type': 'user'}";

static const char tail[] =
        "],"
        "  'maskedPaths': ['/proc/acpi', '/proc/asound', '/proc/kcore', '/proc/keys',"
        "                  '/proc/latency_stats', '/proc/timer_list', '/proc/timer_stats',"
        "                  '/proc/sched_debug', '/sys/firmware', '/proc/scsi'],"
        "  'readonlyPaths': ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys',"
        "                    '/proc/sysrq-trigger']}}";

static char *spec_text(bool rootless)
{
        auto_free char *middle = rootless ? xasprintf(rootless_format, geteuid(), getegid())
                                          : xstrdup(privileged);
        const char *cgroup = cgroup_mode() == CGROUP_MODE_V2 ? ", {'type': 'cgroup'}" : "";
        auto_free char *text = xasprintf("%s%s%s%s", head, middle, cgroup, tail);
        for (char *p = text; (p = strchr(p, '\'')); p++)
                *p = '"';
        struct json_object *object = NULL;
        if (json_parse(text, strlen(text), &object, NULL) < 0)
                return NULL;
        char *pretty = json_text(object, true);
        json_object_put(object);
        return pretty;
}

int cli_spec(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option longs[] = { { "bundle", required_argument, NULL, 'b' },
                                               { "rootless", no_argument, NULL, 'r' },
                                               { "file", required_argument, NULL, 'f' },
                                               { NULL, 0, NULL, 0 } };
        const char *bundle = ".", *file = "config.json";
        bool rootless = false;
        int flag;
        (void)cli;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, "+:b:f:", longs, err)) != -1) {
                if (flag == 'b')
                        bundle = optarg;
                else if (flag == 'f')
                        file = optarg;
                else if (flag == 'r')
                        rootless = true;
                else
                        return -EINVAL;
        }
        int r = cli_expect(argc, argv, 0, false, err);
        if (r < 0)
                return r;
        auto_fd dirfd = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dirfd < 0)
                return err_set(err, errno, "bundle '%s'", bundle);
        auto_free char *text = spec_text(rootless);
        auto_fd fd = openat(dirfd, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno == EEXIST)
                return err_plain(err, EEXIST, "File %s exists. Remove it first", file);
        if (fd < 0 || !text)
                return err_set(err, fd < 0 ? errno : EINVAL, "make %s", file);
        r = io_write_full(fd, text, strlen(text));
        if (r == 0)
                r = io_write_full(fd, "\n", 1);
        return r < 0 ? err_set(err, -r, "write %s", file) : 0;
}

static struct json_object *names(const char *const *list)
{
        struct json_object *array = json_object_new_array();
        for (; *list; list++)
                json_object_array_add(array, json_object_new_string(*list));
        return array;
}

static struct json_object *enabled(bool yes)
{
        struct json_object *object = json_object_new_object();
        json_object_object_add(object, "enabled", json_object_new_boolean(yes));
        return object;
}

static struct json_object *capability_names(void)
{
        struct json_object *array = json_object_new_array();
        for (int cap = 0, last = caps_last(); cap <= last && caps_name(cap); cap++)
                json_object_array_add(array, json_object_new_string(caps_name(cap)));
        return array;
}

static struct json_object *seccomp_features(void)
{
        static const char *const actions[] = { "SCMP_ACT_ALLOW",        "SCMP_ACT_ERRNO",
                                               "SCMP_ACT_KILL",         "SCMP_ACT_LOG",
                                               "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                                               "SCMP_ACT_NOTIFY",       "SCMP_ACT_TRACE",
                                               "SCMP_ACT_TRAP",         NULL };
        static const char *const operators[] = { "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
                                                 "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                                                 "SCMP_CMP_NE", NULL };
        static const char *const archs[] = {
                "SCMP_ARCH_AARCH64",  "SCMP_ARCH_ARM",         "SCMP_ARCH_MIPS",
                "SCMP_ARCH_MIPS64",   "SCMP_ARCH_MIPS64N32",   "SCMP_ARCH_MIPSEL",
                "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC",
                "SCMP_ARCH_PPC64",    "SCMP_ARCH_PPC64LE",     "SCMP_ARCH_RISCV64",
                "SCMP_ARCH_S390",     "SCMP_ARCH_S390X",       "SCMP_ARCH_X32",
                "SCMP_ARCH_X86",      "SCMP_ARCH_X86_64",      NULL
        };
        static const char *const flags[] = { "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
                                             "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                                             "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", NULL };
        struct json_object *object = enabled(true);
        json_object_object_add(object, "actions", names(actions));
        json_object_object_add(object, "operators", names(operators));
        json_object_object_add(object, "archs", names(archs));
        json_object_object_add(object, "knownFlags", names(flags));
        json_object_object_add(object, "supportedFlags", names(flags));
        return object;
}

/* The directory is there where kernel and processor have it, mounted or not. */
static struct json_object *rdt_features(void)
{
        struct json_object *object = enabled(access("/sys/fs/resctrl", F_OK) == 0);
        json_object_object_add(object, "schemata", json_object_new_boolean(true));
        json_object_object_add(object, "monitoring", json_object_new_boolean(true));
        return object;
}

static struct json_object *linux_features(void)
{
        static const char *const namespaces[] = { "cgroup", "ipc",  "mount", "network", "pid",
                                                  "time",   "user", "uts",   NULL };
        struct json_object *object = json_object_new_object();
        struct json_object *cgroup = json_object_new_object();
        struct json_object *extensions = json_object_new_object();
        enum cgroup_mode mode = cgroup_mode();
        json_object_object_add(object, "namespaces", names(namespaces));
        json_object_object_add(object, "capabilities", capability_names());
        json_object_object_add(cgroup, "v1", json_object_new_boolean(mode != CGROUP_MODE_V2));
        json_object_object_add(cgroup, "v2", json_object_new_boolean(mode == CGROUP_MODE_V2));
        json_object_object_add(cgroup, "systemd", json_object_new_boolean(true));
        json_object_object_add(cgroup, "systemdUser", json_object_new_boolean(true));
        json_object_object_add(cgroup, "rdma", json_object_new_boolean(true));
        json_object_object_add(object, "cgroup", cgroup);
        json_object_object_add(object, "seccomp", seccomp_features());
        json_object_object_add(object, "apparmor",
                               enabled(access("/sys/kernel/security/apparmor", F_OK) == 0));
        json_object_object_add(object, "selinux",
                               enabled(access("/sys/fs/selinux/enforce", F_OK) == 0));
        json_object_object_add(object, "intelRdt", rdt_features());
        json_object_object_add(extensions, "idmap", enabled(true));
        json_object_object_add(object, "mountExtensions", extensions);
        json_object_object_add(object, "netDevices", enabled(true));
        return object;
}

int cli_features(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option none[] = { { NULL, 0, NULL, 0 } };
        static const char *const hooks[] = { "prestart",
                                             "createRuntime",
                                             "createContainer",
                                             "startContainer",
                                             "poststart",
                                             "poststop",
                                             NULL };
        (void)ret_code;
        if (cli_next(argc, argv, "+:", none, err) != -1)
                return -EINVAL;
        int r = cli_expect(argc, argv, 0, false, err);
        if (r < 0)
                return r;
        auto_json object = json_object_new_object();
        auto_strv options = mount_options_known();
        json_object_object_add(object, "ociVersionMin", json_object_new_string("1.0.0"));
        json_object_object_add(object, "ociVersionMax",
                               json_object_new_string(OCI_RUNTIME_SPEC_VERSION));
        json_object_object_add(object, "hooks", names(hooks));
        json_object_object_add(object, "mountOptions", names((const char *const *)options));
        json_object_object_add(object, "linux", linux_features());
        struct json_object *annotations = json_object_new_object();
        json_object_object_add(annotations, "io.github.seccomp.libseccomp.version",
                               json_object_new_string("2.5"));
        auto_criu criu = { .fd = -1 };
        bool checkpoint = criu_open(cli->criu, NULL, 0, &criu, NULL) == 0;
        json_object_object_add(annotations, "org.opencontainers.runc.checkpoint.enabled",
                               json_object_new_string(checkpoint ? "true" : "false"));
        json_object_object_add(object, "annotations", annotations);
        auto_free char *text = json_text(object, true);
        puts(text);
        return 0;
}
