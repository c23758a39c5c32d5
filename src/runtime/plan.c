#include "runtime/plan.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

static const enum namespace_kind kind_of[OCI_NAMESPACE_KINDS] = {
        [OCI_NAMESPACE_PID] = NAMESPACE_PID,       [OCI_NAMESPACE_NETWORK] = NAMESPACE_NETWORK,
        [OCI_NAMESPACE_MOUNT] = NAMESPACE_MOUNT,   [OCI_NAMESPACE_IPC] = NAMESPACE_IPC,
        [OCI_NAMESPACE_UTS] = NAMESPACE_UTS,       [OCI_NAMESPACE_USER] = NAMESPACE_USER,
        [OCI_NAMESPACE_CGROUP] = NAMESPACE_CGROUP, [OCI_NAMESPACE_TIME] = NAMESPACE_TIME,
};

static const struct {
        const char *path;
        unsigned major, minor;
} default_devices[] = {
        { "/dev/null", 1, 3 },   { "/dev/zero", 1, 5 },    { "/dev/full", 1, 7 },
        { "/dev/random", 1, 8 }, { "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 },
};

static char *absolute(const char *base, const char *path)
{
        return *path == '/' ? xstrdup(path) : xasprintf("%s/%s", base, path);
}

static void plan_namespaces(const struct oci_spec *spec, struct plan *plan)
{
        for (size_t i = 0; i < spec->linux_->namespaces_length; i++) {
                const struct oci_namespace *ns = &spec->linux_->namespaces[i];
                enum namespace_kind kind = kind_of[ns->kind];
                if (kind == NAMESPACE_MOUNT)
                        plan->private_mounts = true;
                if (kind == NAMESPACE_USER)
                        plan->in_user_namespace = true;
                if (!str_empty(ns->path))
                        continue;
                if (kind == NAMESPACE_TIME)
                        plan->new_time = true;
                else
                        plan->new_namespaces |= namespace_table[kind].flag;
        }
        /* The user namespace comes first: it gives the right to join the others. */
        for (unsigned kind = 0; kind < NAMESPACE_KINDS; kind++) {
                for (size_t i = 0; i < spec->linux_->namespaces_length; i++) {
                        const struct oci_namespace *ns = &spec->linux_->namespaces[i];
                        if (kind_of[ns->kind] != kind || str_empty(ns->path))
                                continue;
                        plan->joins[plan->joins_length++] = (struct plan_join){ kind, ns->path };
                }
        }
}

static struct namespace_map *copy_map(const struct oci_id_mapping *from, size_t length)
{
        struct namespace_map *to = xcalloc(length + 1, sizeof(*to));
        for (size_t i = 0; i < length; i++)
                to[i] = (struct namespace_map){ from[i].container_id, from[i].host_id,
                                                from[i].size };
        return to;
}

static bool is_super_block_type(const char *type)
{
        return type && *type && !streq(type, "none") && !streq(type, "bind");
}

static int plan_one_mount(const struct oci_mount *oci, const char *bundle, struct plan_mount *to,
                          struct err *err)
{
        to->oci = oci;
        int r = mount_options_parse(oci->options, &to->options, err);
        if (r < 0)
                return r;
        if (streq(oci->type, "bind"))
                to->options.bind = true;
        if (to->options.remount) {
                to->kind = PLAN_MOUNT_REMOUNT;
        } else if (streq(oci->type, "cgroup") || streq(oci->type, "cgroup2")) {
                to->kind = PLAN_MOUNT_CGROUP;
        } else if (to->options.bind) {
                to->kind = PLAN_MOUNT_BIND;
                if (str_empty(oci->source))
                        return err_plain(err, EINVAL, "bind mount at '%s' has no source",
                                         oci->destination);
                to->source = absolute(bundle, oci->source);
        } else if (is_super_block_type(oci->type)) {
                to->kind = PLAN_MOUNT_NEW;
        } else {
                return err_plain(err, EINVAL, "mount at '%s' has neither a type nor 'bind'",
                                 oci->destination);
        }
        if (to->kind == PLAN_MOUNT_NEW && streq(oci->type, "tmpfs") && to->options.read_only) {
                to->late_read_only = true;
                to->options.set &= ~(uint64_t)MOUNT_ATTR_RDONLY;
        }
        return 0;
}

static int plan_mounts(const struct oci_spec *spec, const char *bundle, struct plan *plan,
                       struct err *err)
{
        plan->populate_dev = true;
        plan->mounts = xcalloc(spec->mounts_length + 1, sizeof(*plan->mounts));
        if (spec->mounts_length && !plan->private_mounts) {
                /* They would appear on the host and stay there. */
                log_warning("nothing is mounted, as the container has no mount namespace of its "
                            "own");
                return 0;
        }
        for (size_t i = 0; i < spec->mounts_length; i++) {
                struct plan_mount *mount = &plan->mounts[plan->mounts_length++];
                int r = plan_one_mount(&spec->mounts[i], bundle, mount, err);
                if (r < 0)
                        return r;
                const char *at = spec->mounts[i].destination;
                if (mount->kind == PLAN_MOUNT_BIND && (streq(at, "/dev") || streq(at, "/dev/")))
                        plan->populate_dev = false;
        }
        return 0;
}

static int plan_one_device(const struct oci_device *oci, struct plan_device *to, struct err *err)
{
        mode_t type;
        switch (oci->type ? *oci->type : 0) {
        case 'c':
        case 'u':
                type = S_IFCHR;
                break;
        case 'b':
                type = S_IFBLK;
                break;
        case 'p':
                type = S_IFIFO;
                break;
        default:
                return err_plain(err, EINVAL, "device '%s' has no type c, b, u or p", oci->path);
        }
        *to = (struct plan_device){
                .path = oci->path,
                .mode = type | (oci->has_file_mode ? oci->file_mode & 07777 : 0666),
                .number = type == S_IFIFO ? 0 : makedev((unsigned)oci->major, (unsigned)oci->minor),
                .uid = oci->has_uid ? oci->uid : 0,
                .gid = oci->has_gid ? oci->gid : 0,
        };
        return 0;
}

/* The defaults of the specification; one of the spec's own replaces them. */
static int plan_devices(const struct oci_linux *linux_, struct plan *plan, struct err *err)
{
        size_t defaults = ELEMENTS(default_devices);
        plan->devices = xcalloc(defaults + linux_->devices_length, sizeof(*plan->devices));
        for (size_t i = 0; i < defaults; i++)
                plan->devices[i] = (struct plan_device){
                        .path = default_devices[i].path,
                        .mode = S_IFCHR | 0666,
                        .number = makedev(default_devices[i].major, default_devices[i].minor),
                };
        plan->devices_length = defaults;
        for (size_t i = 0; i < linux_->devices_length; i++) {
                struct plan_device device;
                int r = plan_one_device(&linux_->devices[i], &device, err);
                if (r < 0)
                        return r;
                size_t at = 0;
                while (at < defaults && !streq(plan->devices[at].path, device.path))
                        at++;
                plan->devices[at < defaults ? at : plan->devices_length++] = device;
        }
        return 0;
}

static void plan_propagation(const struct oci_linux *linux_, struct plan *plan)
{
        static const struct {
                uint64_t flag;
                bool recursive;
        } table[] = {
                [OCI_PROPAGATION_UNSET] = { 0, false },
                [OCI_PROPAGATION_SHARED] = { MS_SHARED, false },
                [OCI_PROPAGATION_SLAVE] = { MS_SLAVE, false },
                [OCI_PROPAGATION_PRIVATE] = { MS_PRIVATE, false },
                [OCI_PROPAGATION_UNBINDABLE] = { MS_UNBINDABLE, false },
                [OCI_PROPAGATION_RSHARED] = { MS_SHARED, true },
                [OCI_PROPAGATION_RSLAVE] = { MS_SLAVE, true },
                [OCI_PROPAGATION_RPRIVATE] = { MS_PRIVATE, true },
                [OCI_PROPAGATION_RUNBINDABLE] = { MS_UNBINDABLE, true },
        };
        plan->propagation = table[linux_->rootfs_propagation].flag;
        plan->propagation_recursive = table[linux_->rootfs_propagation].recursive;
}

static bool has(const struct oci_spec *spec, enum oci_namespace_kind kind)
{
        return oci_spec_namespace(spec, kind) != NULL;
}

/* Kernel settings that are the namespace's own; anything else would change the host. */
static int check_sysctl(const struct oci_spec *spec, const char *key, const char *value,
                        struct err *err)
{
        static const char *const ipc[] = { "kernel.msgmax", "kernel.msgmnb",
                                           "kernel.msgmni", "kernel.sem",
                                           "kernel.shmall", "kernel.shmmax",
                                           "kernel.shmmni", "kernel.shm_rmid_forced" };
        auto_free char *name = xstrdup(key);
        for (char *c = name; *c; c++) { /* "net/ipv4/x" is the same as "net.ipv4.x" */
                if (*c == '/')
                        *c = '.';
        }
        if (strstr(name, ".."))
                return err_plain(err, EINVAL, "sysctl \"%s\" is not a name", key);
        bool of_ipc = str_starts(name, "fs.mqueue.");
        for (size_t i = 0; i < ELEMENTS(ipc); i++)
                of_ipc |= streq(name, ipc[i]);
        if (of_ipc)
                return has(spec, OCI_NAMESPACE_IPC)
                               ? 0
                               : err_plain(
                                         err, EINVAL,
                                         "sysctl \"%s\" is not allowed in the hosts ipc namespace",
                                         key);
        if (str_starts(name, "net."))
                return has(spec, OCI_NAMESPACE_NETWORK)
                               ? 0
                               : err_plain(err, EINVAL,
                                           "sysctl \"%s\" not allowed in host network namespace",
                                           key);
        if (streq(name, "kernel.domainname") || streq(name, "kernel.hostname")) {
                if (!has(spec, OCI_NAMESPACE_UTS))
                        return err_plain(err, EINVAL,
                                         "sysctl \"%s\" is not allowed in the hosts uts namespace",
                                         key);
                if (streq(name, "kernel.hostname"))
                        return err_plain(err, EINVAL,
                                         "sysctl \"%s\" conflicts with the hostname of the spec",
                                         key);
                if (!str_empty(spec->domainname) && !streq(spec->domainname, value))
                        return err_plain(err, EINVAL,
                                         "sysctl \"%s\" conflicts with the domainname of the spec",
                                         key);
                return 0;
        }
        return err_plain(err, EINVAL, "sysctl \"%s\" is not in a separate kernel namespace", key);
}

/* Settings that would reach the host without the namespace they belong to. */
static int check_separation(const struct oci_spec *spec, struct err *err)
{
        const struct oci_linux *l = spec->linux_;
        bool mounts = has(spec, OCI_NAMESPACE_MOUNT);
        if (!mounts &&
            ((l->masked_paths && *l->masked_paths) || (l->readonly_paths && *l->readonly_paths)))
                return err_plain(err, EINVAL,
                                 "unable to restrict sys entries without a private MNT namespace");
        if ((!str_empty(spec->hostname) || !str_empty(spec->domainname)) &&
            !has(spec, OCI_NAMESPACE_UTS))
                return err_plain(err, EINVAL,
                                 "unable to set hostname without a private UTS namespace");
        if (l->net_devices_length && !has(spec, OCI_NAMESPACE_NETWORK))
                return err_plain(err, EINVAL,
                                 "unable to move network devices without a private NET namespace");
        for (char **entry = l->sysctl; entry && *entry; entry++) {
                const char *value;
                auto_free char *key = json_map_split(*entry, &value);
                int r = check_sysctl(spec, key, value, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int plan_everything(const struct oci_spec *spec, const char *bundle, const char *id,
                           struct plan *plan, struct err *err)
{
        const struct oci_linux *l = spec->linux_;
        if (!l)
                return err_plain(err, EINVAL, "config.json has no \"linux\" section");
        if (!spec->process)
                return err_plain(err, EINVAL, "config.json has no \"process\" section");
        int r = check_separation(spec, err);
        if (r == 0)
                r = plan_process_create(spec->process, &plan->process, err);
        if (r < 0)
                return r;
        plan_namespaces(spec, plan);
        plan->rootfs = absolute(bundle, spec->root->path);
        plan->uid_maps = copy_map(l->uid_mappings, l->uid_mappings_length);
        plan->uid_maps_length = l->uid_mappings_length;
        plan->gid_maps = copy_map(l->gid_mappings, l->gid_mappings_length);
        plan->gid_maps_length = l->gid_mappings_length;
        r = plan_mounts(spec, bundle, plan, err);
        if (r == 0)
                r = plan_devices(l, plan, err);
        if (r < 0)
                return r;
        plan_propagation(l, plan);
        plan->cgroup_path = xstrdup(str_empty(l->cgroups_path) ? id : l->cgroups_path);
        return limits_create(l->resources, false, &plan->limits, err);
}

int plan_create(const struct oci_spec *spec, const char *bundle, const char *id, struct plan *ret,
                struct err *err)
{
        struct plan plan = { .spec = spec };
        int r = plan_everything(spec, bundle, id, &plan, err);
        if (r < 0) {
                plan_finish(&plan);
                return r;
        }
        *ret = plan;
        return 0;
}

void plan_finish(struct plan *plan)
{
        for (size_t i = 0; i < plan->mounts_length; i++) {
                mount_options_finish(&plan->mounts[i].options);
                free(plan->mounts[i].source);
        }
        plan_process_finish(&plan->process);
        limits_finish(&plan->limits);
        free(plan->mounts);
        free(plan->devices);
        free(plan->uid_maps);
        free(plan->gid_maps);
        free(plan->rootfs);
        free(plan->cgroup_path);
        *plan = (struct plan){ 0 };
}

bool plan_opens_sources(const struct plan *plan)
{
        return plan->in_user_namespace && geteuid() == 0;
}
