#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"
#include "sys/kvm.h"

#define KVM_MAJOR 10
#define KVM_MINOR 232

int guest_choose_cpu(const struct oci_spec *spec, const char **ret, struct err *err)
{
        const char *asked = json_map_get(spec->annotations, GUEST_CPU_ANNOTATION);
        const char *source = "annotation " GUEST_CPU_ANNOTATION;
        if (!asked) {
                asked = getenv("ISLE_VM_CPU");
                source = "the environment's ISLE_VM_CPU";
        }
        if (str_empty(asked) || streq(asked, "auto"))
                *ret = kvm_runs_well() ? "kvm" : "soft";
        else if (streq(asked, "kvm") || streq(asked, "soft"))
                *ret = streq(asked, "kvm") ? "kvm" : "soft";
        else
                return err_plain(err, EINVAL, "%s: '%s' is not known; there are auto, kvm and soft",
                                 source, asked);
        return 0;
}

int guest_choose_cpu_model(const struct oci_spec *spec, const char **ret, struct err *err)
{
        static const char *const known[] = { "host", "x86-64", "x86-64-v2", "x86-64-v3" };
        const char *asked = json_map_get(spec->annotations, GUEST_CPU_MODEL_ANNOTATION);
        const char *source = "annotation " GUEST_CPU_MODEL_ANNOTATION;
        if (!asked) {
                asked = getenv("ISLE_VM_CPU_MODEL");
                source = "the environment's ISLE_VM_CPU_MODEL";
        }
        *ret = NULL;
        if (str_empty(asked))
                return 0;
        for (size_t i = 0; i < ELEMENTS(known); i++) {
                if (streq(asked, known[i])) {
                        *ret = known[i];
                        return 0;
                }
        }
        return err_plain(err, EINVAL,
                         "%s: '%s' is not known; there are host, x86-64, x86-64-v2 and x86-64-v3",
                         source, asked);
}

static void add_mount(struct oci_spec *jail, const char *destination, const char *type,
                      const char *source, const char *options)
{
        jail->mounts = xrealloc(jail->mounts, jail->mounts_length + 1, sizeof(*jail->mounts));
        jail->mounts[jail->mounts_length++] = (struct oci_mount){
                .destination = xstrdup(destination),
                .type = xstrdup(type),
                .source = xstrdup(source),
                .options = str_split(options, ','),
        };
}

#define PROGRAM_OPTIONS "bind,ro,nosuid,nodev"
#define DATA_OPTIONS    "bind,ro,nosuid,nodev,noexec"

static void add_programs(struct oci_spec *jail, const struct guest_parts *parts)
{
        /* isle-vmm is linked dynamically: its libraries, and nothing else of the host. */
        static const char *const libraries[] = { "/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache" };
        for (size_t i = 0; i < ELEMENTS(libraries); i++)
                if (access(libraries[i], F_OK) == 0)
                        add_mount(jail, libraries[i], "bind", libraries[i], PROGRAM_OPTIONS);
        add_mount(jail, "/isle/isle-runtime", "bind", parts->runtime, PROGRAM_OPTIONS);
        add_mount(jail, "/isle/isle-vmm", "bind", parts->vmm, PROGRAM_OPTIONS);
        add_mount(jail, "/isle/kernel", "bind", parts->kernel, DATA_OPTIONS);
        add_mount(jail, "/isle/initramfs", "bind", parts->initramfs, DATA_OPTIONS);
        if (parts->template)
                add_mount(jail, GUEST_TEMPLATE, "bind", parts->template, DATA_OPTIONS);
}

bool guest_mount_is_bind(const struct oci_mount *mount)
{
        return streq(mount->type, "bind") || strv_contains(mount->options, "bind") ||
               strv_contains(mount->options, "rbind");
}

/* What the guest shall see is bound below /share; how (read-only, no programs …) is
 * for the guest's mount to say, and read-only for ours as well. */
static void add_share(struct oci_spec *jail, const struct oci_spec *spec,
                      const struct guest_root *root)
{
        bool read_only = spec->root->readonly;
        if (root->image) {
                add_mount(jail, ROOT_IMAGE, "bind", root->image, DATA_OPTIONS);
                add_mount(jail, ROOT_ABOVE, "bind", root->above,
                          read_only ? "bind,ro,nodev" : "bind,nodev");
                add_mount(jail, GUEST_SHARE, "tmpfs", "tmpfs",
                          "nosuid,nodev,noexec,mode=755,size=64k");
        } else {
                add_mount(jail, GUEST_SHARE "/rootfs", "bind", spec->root->path,
                          read_only ? "rbind,ro,nodev" : "rbind,nodev");
        }
        for (size_t i = 0; i < spec->mounts_length; i++) {
                const struct oci_mount *mount = &spec->mounts[i];
                if (!guest_mount_is_bind(mount))
                        continue;
                auto_free char *place = xasprintf(GUEST_SHARE "/mounts/%zu", i);
                add_mount(jail, place, "bind", mount->source,
                          strv_contains(mount->options, "ro") ? "rbind,ro,nodev" : "rbind,nodev");
        }
}

static void add_process(struct oci_spec *jail, const struct oci_spec *spec, int channel)
{
        /* What serving the root file system to a guest with users of its own takes. */
        static const char capabilities[] =
                "CAP_CHOWN,CAP_DAC_OVERRIDE,CAP_FOWNER,CAP_FSETID,CAP_MKNOD,CAP_SETFCAP,"
                "CAP_SETGID,CAP_SETUID";
        struct oci_process *process = xcalloc(1, sizeof(*process));
        const struct oci_process *old = spec->process;
        process->terminal = old && old->terminal;
        if (old && old->console_size)
                process->console_size = xmemdup(old->console_size, sizeof(*old->console_size));
        if (old) {
                process->has_oom_score_adj = old->has_oom_score_adj;
                process->oom_score_adj = old->oom_score_adj;
        }
        strv_push(&process->args, "/isle/isle-runtime");
        strv_push(&process->args, "vm-shim");
        strv_push_take(&process->args, xasprintf("%d", channel));
        strv_push(&process->env, "PATH=/isle");
        process->cwd = xstrdup("/");
        process->no_new_privileges = true;
        process->capabilities = xcalloc(1, sizeof(*process->capabilities));
        process->capabilities->bounding = str_split(capabilities, ',');
        process->capabilities->effective = str_split(capabilities, ',');
        process->capabilities->permitted = str_split(capabilities, ',');
        jail->process = process;
}

static void add_namespace(struct oci_linux *linux_, int kind, const char *path)
{
        linux_->namespaces = xrealloc(linux_->namespaces, linux_->namespaces_length + 1,
                                      sizeof(*linux_->namespaces));
        linux_->namespaces[linux_->namespaces_length++] = (struct oci_namespace){
                .kind = kind, .path = path ? xstrdup(path) : NULL
        };
}

static int add_namespaces(struct oci_linux *linux_, const struct oci_spec *spec, struct err *err)
{
        static const enum oci_namespace_kind own[] = { OCI_NAMESPACE_PID, OCI_NAMESPACE_MOUNT,
                                                       OCI_NAMESPACE_IPC, OCI_NAMESPACE_UTS,
                                                       OCI_NAMESPACE_CGROUP };
        for (size_t i = 0; i < ELEMENTS(own); i++) {
                const struct oci_namespace *asked = oci_spec_namespace(spec, own[i]);
                bool shared = asked ? !str_empty(asked->path)
                                    : own[i] == OCI_NAMESPACE_PID || own[i] == OCI_NAMESPACE_MOUNT;
                if (shared && own[i] != OCI_NAMESPACE_UTS && own[i] != OCI_NAMESPACE_CGROUP)
                        return err_plain(err, EOPNOTSUPP,
                                         "a container in a virtual machine has its own %s "
                                         "namespace: it can neither join another's nor be "
                                         "without",
                                         oci_namespace_names[own[i]]);
                add_namespace(linux_, own[i], NULL);
        }
        const struct oci_namespace *net = oci_spec_namespace(spec, OCI_NAMESPACE_NETWORK);
        add_namespace(linux_, OCI_NAMESPACE_NETWORK, net ? net->path : NULL);
        return 0;
}

/* The limits of the container hold for the machine, with what the machine itself needs
 * on top; how many processes there may be is the guest's matter. */
static void add_resources(struct oci_linux *linux_, struct oci_linux *old,
                          const struct guest_size *size)
{
        struct oci_resources *resources = old->resources;
        old->resources = NULL;
        if (!resources)
                resources = xcalloc(1, sizeof(*resources));
        guest_host_limits(resources, size->memory_bytes, size->cpus_max);
        resources->devices = xrealloc(resources->devices, resources->devices_length + 1,
                                      sizeof(*resources->devices));
        resources->devices[resources->devices_length++] = (struct oci_device_rule){
                .allow = true,
                .type = xstrdup("c"),
                .major = KVM_MAJOR,
                .has_major = true,
                .minor = KVM_MINOR,
                .has_minor = true,
                .access = xstrdup("rw"),
        };
        linux_->resources = resources;
}

static void add_kvm(struct oci_linux *linux_)
{
        struct stat st;
        if (stat("/dev/kvm", &st) < 0 || !S_ISCHR(st.st_mode))
                return;
        linux_->devices = xcalloc(1, sizeof(*linux_->devices));
        linux_->devices[0] = (struct oci_device){ .path = xstrdup("/dev/kvm"),
                                                  .type = xstrdup("c"),
                                                  .major = KVM_MAJOR,
                                                  .minor = KVM_MINOR,
                                                  .file_mode = 0600,
                                                  .has_file_mode = true };
        linux_->devices_length = 1;
}

/* They come to the namespace, and from there to the machine. */
static void take_net_devices(struct oci_linux *linux_, struct oci_linux *old)
{
        linux_->net_devices = take_ptr(old->net_devices);
        linux_->net_devices_length = old->net_devices_length;
        old->net_devices_length = 0;
}

int guest_check_parts(const struct oci_spec *spec, struct err *err)
{
        if (!spec->process || !spec->root || !spec->linux_)
                return err_plain(err, EINVAL,
                                 "a container in a virtual machine needs process, root and linux "
                                 "in its config.json");
        return 0;
}

static int check(const struct oci_spec *spec, struct err *err)
{
        const struct oci_linux *linux_ = spec->linux_;
        int r = guest_check_parts(spec, err);
        if (r < 0)
                return r;
        if (!oci_spec_namespace(spec, OCI_NAMESPACE_NETWORK))
                return err_plain(err, EOPNOTSUPP,
                                 "a virtual machine cannot share the host's network: a network "
                                 "namespace is needed");
        if (oci_spec_namespace(spec, OCI_NAMESPACE_USER) || linux_->uid_mappings_length)
                return err_plain(err, EOPNOTSUPP,
                                 "user namespaces are not supported with --vm: the guest has "
                                 "users of its own");
        if (linux_->seccomp && !str_empty(linux_->seccomp->listener_path))
                return err_plain(err, EOPNOTSUPP,
                                 "a seccomp listener cannot look into a virtual machine");
        return 0;
}

/* Those of the container's own start run in the guest, and are left to `spec`. */
static void take_hooks(struct oci_spec *jail, struct oci_spec *spec)
{
        jail->hooks = spec->hooks;
        spec->hooks = NULL;
        if (!jail->hooks)
                return;
        spec->hooks = xcalloc(1, sizeof(*spec->hooks));
        spec->hooks->start_container = jail->hooks->start_container;
        spec->hooks->start_container_length = jail->hooks->start_container_length;
        jail->hooks->start_container = NULL;
        jail->hooks->start_container_length = 0;
}

int guest_make_jail(struct oci_spec *spec, const struct guest_parts *parts, const char *state,
                    int channel, struct err *err)
{
        struct oci_spec jail = { 0 };
        struct guest_size size;
        int r = check(spec, err);
        if (r == 0)
                r = guest_size(spec, &size, err);
        if (r < 0)
                return r;
        jail.linux_ = xcalloc(1, sizeof(*jail.linux_));
        jail.root = xcalloc(1, sizeof(*jail.root));
        jail.root->path = xasprintf("%s/jail", state);
        jail.root->readonly = true;
        jail.oci_version = xstrdup(spec->oci_version);
        jail.annotations = strv_copy(spec->annotations);
        add_mount(&jail, "/proc", "proc", "proc", "nosuid,nodev,noexec");
        add_mount(&jail, "/dev", "tmpfs", "tmpfs", "nosuid,noexec,mode=755,size=64k");
        add_mount(&jail, "/dev/pts", "devpts", "devpts",
                  "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620");
        add_programs(&jail, parts);
        auto_free char *directory = xasprintf("%s/vm", state);
        add_mount(&jail, GUEST_DIRECTORY, "bind", directory, "bind,nosuid,nodev,noexec");
        auto_free char *control = xasprintf("%s/" GUEST_CONTROL_NAME, state);
        add_mount(&jail, GUEST_CONTROL, "bind", control, "bind,nosuid,nodev,noexec");
        add_share(&jail, spec, &parts->root);
        add_process(&jail, spec, channel);
        r = add_namespaces(jail.linux_, spec, err);
        jail.linux_->cgroups_path = spec->linux_->cgroups_path ? xstrdup(spec->linux_->cgroups_path)
                                                               : NULL;
        add_resources(jail.linux_, spec->linux_, &size);
        add_kvm(jail.linux_);
        take_net_devices(jail.linux_, spec->linux_);
        take_hooks(&jail, spec);
        json_free(&oci_spec_shape, spec);
        *spec = jail;
        return r;
}
