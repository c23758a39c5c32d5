#include "engine/bundle.h"

#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/security.h"

#define INIT_IN_INSTANCE      "/sbin/docker-init"
#define DEFAULT_PATH          "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define DEFAULT_SHM_BYTES     (64LL << 20)
#define TMPFS_DEFAULT_OPTIONS "noexec", "nosuid", "nodev"

static const char *const default_masked[] = {
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        NULL,
};

static const char *const default_readonly[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL,
};

static char **strv_of(const char *const *list)
{
        return strv_copy((char *const *)list);
}

/* -- process ------------------------------------------------------------------- */

/* "NAME" without "=" takes the variable away (as `docker run -e NAME` with NAME unset does). */
static void remove_variable(char **env, const char *name)
{
        size_t length = strlen(name), kept = 0;
        for (size_t i = 0; env && env[i]; i++) {
                if (strncmp(env[i], name, length) == 0 && env[i][length] == '=')
                        free(env[i]);
                else
                        env[kept++] = env[i];
        }
        if (env)
                env[kept] = NULL;
}

char **bundle_environment(char *const *env, const char *hostname, const char *home, bool tty)
{
        char **all = NULL;
        strv_push(&all, DEFAULT_PATH);
        strv_push_take(&all, xasprintf("HOSTNAME=%s", hostname));
        if (tty)
                strv_push(&all, "TERM=xterm");
        strv_push_take(&all, xasprintf("HOME=%s", home));
        for (; env && *env; env++) {
                if (strchr(*env, '='))
                        strv_set_variable(&all, *env);
                else
                        remove_variable(all, *env);
        }
        return all;
}

struct oci_capabilities *bundle_capabilities(char *const *names, bool for_root)
{
        struct oci_capabilities *caps = new0(struct oci_capabilities);
        caps->bounding = strv_copy(names);
        if (for_root) {
                caps->effective = strv_copy(names);
                caps->permitted = strv_copy(names);
        }
        return caps;
}

void bundle_add_rlimits(const struct host_config *host, struct oci_process *process)
{
        for (size_t i = 0; i < host->ulimits_length; i++) {
                const struct ulimit *u = &host->ulimits[i];
                struct oci_rlimit limit = {
                        .type = xasprintf("RLIMIT_%s", u->name),
                        .soft = (uint64_t)u->soft,
                        .hard = (uint64_t)u->hard,
                };
                for (char *c = limit.type; *c; c++)
                        *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
                ARRAY_PUSH(process->rlimits, process->rlimits_length, limit);
        }
}

static struct oci_process *build_process(const struct bundle_input *in,
                                         const struct security *security)
{
        const struct instance_config *config = &in->instance->spec.config;
        const struct host_config *host = &in->instance->spec.host;
        struct oci_process *p = new0(struct oci_process);
        p->terminal = config->tty;
        if (config->tty && host->console_size_length == 2 && host->console_size[0] &&
            host->console_size[1]) {
                p->console_size = new0(struct oci_console_size);
                p->console_size->height = host->console_size[0];
                p->console_size->width = host->console_size[1];
        }
        p->user.uid = in->user.uid;
        p->user.gid = in->user.gid;
        p->user.additional_gids_length = in->user.groups_length;
        if (in->user.groups_length)
                p->user.additional_gids = xmemdup(in->user.groups,
                                                  in->user.groups_length * sizeof(uint32_t));
        bool init = host->has_init && host->init && !streq(host->pid_mode, "host");
        if (init) {
                strv_push(&p->args, INIT_IN_INSTANCE);
                strv_push(&p->args, "--");
        }
        for (char **arg = in->instance->argv; arg && *arg; arg++)
                strv_push(&p->args, *arg);
        p->env = bundle_environment(config->env, in->hostname, in->user.home, config->tty);
        p->cwd = xstrdup(str_empty(config->working_dir) ? "/" : config->working_dir);
        p->capabilities = bundle_capabilities(security->capabilities, in->user.uid == 0);
        p->no_new_privileges = security->no_new_privileges;
        p->oom_score_adj = (int32_t)host->oom_score_adj;
        p->has_oom_score_adj = true;
        bundle_add_rlimits(host, p);
        return p;
}

/* -- mounts -------------------------------------------------------------------- */

static void add_mount(struct oci_spec *spec, const char *destination, const char *type,
                      const char *source, const char *const *options)
{
        struct oci_mount mount = {
                .destination = xstrdup(destination),
                .type = xstrdup(type),
                .source = xstrdup(source),
                .options = strv_of(options),
        };
        ARRAY_PUSH(spec->mounts, spec->mounts_length, mount);
}

#define OPTIONS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Whether the user has a mount of his own at this place. */
static bool is_taken(const struct instance *instance, const char *destination)
{
        for (size_t i = 0; i < instance->mounts_length; i++)
                if (streq(instance->mounts[i].destination, destination))
                        return true;
        return false;
}

static void add_shm(const struct bundle_input *in, struct oci_spec *spec)
{
        const struct host_config *host = &in->instance->spec.host;
        if (is_taken(in->instance, "/dev/shm") || streq(host->ipc_mode, "none"))
                return;
        if (streq(host->ipc_mode, "host")) {
                add_mount(spec, "/dev/shm", "bind", "/dev/shm", OPTIONS("rbind", "rprivate"));
        } else if (in->ipc_pid) {
                auto_free char *source = xasprintf("/proc/%d/root/dev/shm", (int)in->ipc_pid);
                add_mount(spec, "/dev/shm", "bind", source, OPTIONS("rbind", "rprivate"));
        } else {
                auto_free char *size = xasprintf(
                        "size=%lld",
                        (long long)(host->shm_size ? host->shm_size : DEFAULT_SHM_BYTES));
                add_mount(spec, "/dev/shm", "tmpfs", "shm",
                          OPTIONS("nosuid", "noexec", "nodev", "mode=1777", size));
        }
}

static void add_system_mounts(const struct bundle_input *in, struct oci_spec *spec)
{
        const struct host_config *host = &in->instance->spec.host;
        const char *access = host->privileged ? "rw" : "ro";
        add_mount(spec, "/proc", "proc", "proc", OPTIONS("nosuid", "noexec", "nodev"));
        add_mount(spec, "/dev", "tmpfs", "tmpfs",
                  OPTIONS("nosuid", "strictatime", "mode=755", "size=65536k"));
        add_mount(
                spec, "/dev/pts", "devpts", "devpts",
                OPTIONS("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"));
        /* A sysfs of the host's network name space cannot be mounted anew by everybody,
         * but root may. */
        add_mount(spec, "/sys", "sysfs", "sysfs", OPTIONS("nosuid", "noexec", "nodev", access));
        add_mount(spec, "/sys/fs/cgroup", "cgroup", "cgroup",
                  OPTIONS("nosuid", "noexec", "nodev", "relatime", access));
        /* It shows the queues of the IPC namespace it is mounted in: no bind is needed. */
        add_mount(spec, "/dev/mqueue", "mqueue", "mqueue", OPTIONS("nosuid", "noexec", "nodev"));
        add_shm(in, spec);
}

static void add_file_mounts(const struct bundle_input *in, struct oci_spec *spec)
{
        const struct instance *i = in->instance;
        const struct {
                const char *destination, *source;
        } files[] = { { "/etc/resolv.conf", i->resolv_conf_path },
                      { "/etc/hostname", i->hostname_path },
                      { "/etc/hosts", i->hosts_path } };
        for (size_t n = 0; n < ELEMENTS(files); n++)
                if (!is_taken(i, files[n].destination))
                        add_mount(spec, files[n].destination, "bind", files[n].source,
                                  OPTIONS("rbind", "rprivate", in->remap.on ? "idmap" : NULL));
        if (i->spec.host.has_init && i->spec.host.init && in->init_path)
                add_mount(spec, INIT_IN_INSTANCE, "bind", in->init_path,
                          OPTIONS("bind", "ro", "rprivate"));
}

static void add_tmpfs(const struct instance_mount *m, struct oci_spec *spec)
{
        char **options = strv_of(OPTIONS(TMPFS_DEFAULT_OPTIONS));
        auto_strv given = str_split(m->options ? m->options : "", ',');
        for (char **option = given; *option; option++) {
                if (!**option)
                        continue;
                auto_free char *opposite = xasprintf("no%s", *option);
                for (char **o = options; *o; o++)
                        if (streq(*o, opposite))
                                (*o)[0] = '\0'; /* "exec" takes "noexec" back */
                if (!strv_contains(options, *option))
                        strv_push(&options, *option);
        }
        size_t kept = 0;
        for (size_t n = 0; options[n]; n++) {
                if (*options[n])
                        options[kept++] = options[n];
                else
                        free(options[n]);
        }
        options[kept] = NULL;
        struct oci_mount mount = { .destination = xstrdup(m->destination),
                                   .type = xstrdup("tmpfs"),
                                   .source = xstrdup("tmpfs"),
                                   .options = options };
        ARRAY_PUSH(spec->mounts, spec->mounts_length, mount);
}

static void add_user_mounts(const struct bundle_input *in, struct oci_spec *spec)
{
        const struct instance *instance = in->instance;
        for (size_t n = 0; n < instance->mounts_length; n++) {
                const struct instance_mount *m = &instance->mounts[n];
                if (streq(m->type, "tmpfs")) {
                        add_tmpfs(m, spec);
                        continue;
                }
                const char *propagation = str_empty(m->propagation) ? "rprivate" : m->propagation;
                add_mount(spec, m->destination, "bind", m->source,
                          OPTIONS(m->non_recursive ? "bind" : "rbind", m->read_write ? "rw" : "ro",
                                  propagation, in->remap.on && m->name ? "idmap" : NULL));
                if (strstr(propagation, "slave") && spec->linux_)
                        spec->linux_->rootfs_propagation = OCI_PROPAGATION_RSLAVE;
        }
}

/* -- name spaces --------------------------------------------------------------- */

static void add_namespace(struct oci_linux *l, enum oci_namespace_kind kind, pid_t join)
{
        struct oci_namespace namespace = { .kind = (int)kind };
        if (join)
        namespace.path = xasprintf("/proc/%d/ns/%s", (int)join,
                                   kind == OCI_NAMESPACE_NETWORK ? "net"
                                                                 : oci_namespace_names[kind]);
        ARRAY_PUSH(l->namespaces, l->namespaces_length, namespace);
}

static void add_namespaces(const struct bundle_input *in, struct oci_linux *l)
{
        const struct host_config *h = &in->instance->spec.host;
        add_namespace(l, OCI_NAMESPACE_MOUNT, 0);
        if (!streq(h->network_mode, "host"))
                add_namespace(l, OCI_NAMESPACE_NETWORK, in->network_pid);
        if (!streq(h->uts_mode, "host"))
                add_namespace(l, OCI_NAMESPACE_UTS, 0);
        if (!streq(h->pid_mode, "host"))
                add_namespace(l, OCI_NAMESPACE_PID, in->pid_pid);
        if (!streq(h->ipc_mode, "host"))
                add_namespace(l, OCI_NAMESPACE_IPC, in->ipc_pid);
        /* Docker's default: private, but for a privileged one on cgroup version 1 hosts. */
        if (streq(h->cgroupns_mode, "private") || (str_empty(h->cgroupns_mode) && !h->privileged))
                add_namespace(l, OCI_NAMESPACE_CGROUP, 0);
}

static void add_sysctls(const struct bundle_input *in, struct oci_linux *l)
{
        const struct host_config *host = &in->instance->spec.host;
        uint32_t last_gid = in->remap.on ? in->remap.gids - 1 : INT32_MAX;
        l->sysctl = host->sysctls ? strv_copy(host->sysctls) : NULL;
        /* As docker: unprivileged ping and low ports, where the network is its own. */
        if (!streq(host->network_mode, "host") &&
            !str_after(host->network_mode ?: "", "container:")) {
                if (!json_map_get(l->sysctl, "net.ipv4.ip_unprivileged_port_start"))
                        strv_push(&l->sysctl, "net.ipv4.ip_unprivileged_port_start=0");
                if (!json_map_get(l->sysctl, "net.ipv4.ping_group_range"))
                        strv_push_take(&l->sysctl,
                                       xasprintf("net.ipv4.ping_group_range=0 %u", last_gid));
        }
}

static void add_hidden_paths(const struct host_config *host, struct oci_linux *l)
{
        if (host->has_masked_paths)
                l->masked_paths = strv_copy(host->masked_paths);
        else if (!host->privileged)
                l->masked_paths = strv_of(default_masked);
        if (host->has_readonly_paths)
                l->readonly_paths = strv_copy(host->readonly_paths);
        else if (!host->privileged)
                l->readonly_paths = strv_of(default_readonly);
}

static int build(const struct bundle_input *in, const struct security *security,
                 struct oci_spec *spec, struct err *err)
{
        const struct host_config *host = &in->instance->spec.host;
        if (!in->instance->argv || !*in->instance->argv)
                return err_plain(err, EINVAL, "no command specified");
        if (host->has_init && host->init && !in->init_path)
                return err_plain(
                        err, ENOTSUP,
                        "--init needs /usr/bin/tini-static; install Debian's package tini");
        spec->oci_version = xstrdup(
                "1.2.0"); /* nothing newer is used, and older runtimes accept it */
        spec->root = new0(struct oci_root);
        spec->root->path = xstrdup(in->rootfs);
        spec->root->readonly = host->readonly_rootfs;
        spec->process = build_process(in, security);
        if (!streq(host->uts_mode, "host")) {
                spec->hostname = xstrdup(in->hostname);
                if (!str_empty(in->instance->spec.config.domainname))
                        spec->domainname = xstrdup(in->instance->spec.config.domainname);
        }
        spec->annotations = host->annotations ? strv_copy(host->annotations) : NULL;
        if (host_config_wants_vm(host)) /* whatever the runtime's own default is */
                json_map_set(&spec->annotations, SPEC_VM_ROOTFS,
                             host_config_wants_layers(host) ? "erofs" : "fs");
        if (in->layers_image)
                json_map_set(&spec->annotations, SPEC_VM_ROOTFS_IMAGE, in->layers_image);
        struct oci_linux *l = spec->linux_ = new0(struct oci_linux);
        add_system_mounts(in, spec);
        add_file_mounts(in, spec);
        add_user_mounts(in, spec);
        add_namespaces(in, l);
        if (in->remap.on)
                remap_apply(&in->remap, l);
        add_sysctls(in, l);
        add_hidden_paths(host, l);
        l->cgroups_path = xstrdup(in->cgroups_path);
        l->resources = bundle_resources(host, in->swap_limit);
        int r = bundle_devices(host, l, err);
        if (r == 0)
                r = security_seccomp(security, &l->seccomp, err);
        return r;
}

int bundle_build(const struct bundle_input *input, struct oci_spec *ret, struct err *err)
{
        struct security security;
        auto_strv warnings = NULL;
        int r = security_parse(&input->instance->spec.host, &security, &warnings, err);
        if (r < 0)
                return r;
        struct oci_spec spec = { 0 };
        r = build(input, &security, &spec, err);
        security_finish(&security);
        if (r < 0) {
                json_free(&oci_spec_shape, &spec);
                return r;
        }
        *ret = spec;
        return 0;
}
