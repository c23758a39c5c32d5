#include "engine/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "codec/json.h"
#include "engine/bundle.h"
#include "engine/files.h"
#include "engine/rootfs.h"
#include "engine/users.h"
#include "sys/resolve.h"

#define ARGUMENTS_MAX 32

static int check_sources(const struct instance *instance, struct err *err)
{
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *m = &instance->mounts[i];
                struct stat st;
                if (streq(m->type, "tmpfs") || stat(m->source, &st) == 0)
                        continue;
                return err_plain(err, EINVAL,
                                 "error mounting \"%s\" to \"%s\": the source does not exist",
                                 m->source, m->destination);
        }
        return 0;
}

/* The working directory is made where the image lacks it, as docker does. */
static int make_working_dir(const struct instance *instance, int root_fd, struct err *err)
{
        const char *path = instance->spec.config.working_dir;
        if (str_empty(path) || streq(path, "/"))
                return 0;
        for (size_t i = 0; i < instance->mounts_length; i++)
                if (str_starts(path, instance->mounts[i].destination))
                        return 0; /* lies in a mount: the runtime's to look at */
        auto_fd fd = -1;
        int r = resolve_make_dir(root_fd, path, 0755, &fd, err);
        return r < 0 ? err_wrap(err, "make the working directory '%s'", path), r : 0;
}

static int write_bundle(const struct prepare_input *in, const char *dir, int root_fd,
                        const char *layers_image, struct err *err)
{
        auto_free char *hostname = files_hostname(in->instance);
        auto_free char *cgroup = instance_cgroup_path(in->engine, in->instance);
        struct bundle_input bundle = {
                .instance = in->instance,
                .rootfs = MONITOR_ROOTFS_NAME,
                .cgroups_path = cgroup,
                .init_path = in->engine->settings.init_path,
                .hostname = hostname,
                .ipc_pid = in->ipc_pid,
                .network_pid = in->network_pid,
                .pid_pid = in->pid_pid,
                .swap_limit = in->engine->swap_limit,
                .remap = remap_of(&in->engine->remap, &in->instance->spec.host),
                .layers_image = layers_image,
        };
        int r = user_lookup(root_fd, in->instance->spec.config.user,
                            in->instance->spec.host.group_add, &bundle.user, err);
        if (r < 0)
                return r;
        struct oci_spec spec;
        r = bundle_build(&bundle, &spec, err);
        user_found_finish(&bundle.user);
        if (r < 0)
                return r;
        auto_free char *text = json_encode_text(&oci_spec_shape, &spec, false);
        json_free(&oci_spec_shape, &spec);
        auto_free char *path = xasprintf("%s/config.json", dir);
        auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_set(err, errno, "create '%s'", path);
        r = io_write_full(fd, text, strlen(text));
        return r < 0 ? err_set(err, -r, "write '%s'", path) : 0;
}

/* max-size in bytes, 0 for none. */
static uint64_t log_max_bytes(const struct instance *instance)
{
        const char *text = json_map_get(instance->spec.host.log_config.config, "max-size");
        uint64_t bytes = 0;
        if (text && str_to_size(text, &bytes) < 0)
                bytes = 0;
        return bytes;
}

static int spawn_monitor(const struct prepare_input *in, const char *dir, int lock_fd, int root_fd,
                         struct link_process *ret, struct err *err)
{
        const struct engine_settings *settings = &in->engine->settings;
        const struct instance_config *config = &in->instance->spec.config;
        const char *files = json_map_get(in->instance->spec.host.log_config.config, "max-file");
        auto_free char *cgroup = instance_cgroup_path(in->engine, in->instance);
        auto_free char *max_bytes = xasprintf("%llu",
                                              (unsigned long long)log_max_bytes(in->instance));
        const char *argv[ARGUMENTS_MAX] = { settings->monitor_path,
                                            "run",
                                            "--id",
                                            in->instance->id,
                                            "--runtime",
                                            settings->runtime_path,
                                            "--runtime-root",
                                            settings->runtime_root,
                                            "--cgroup",
                                            cgroup };
        size_t n = 10;
        if (host_config_wants_vm(&in->instance->spec.host))
                argv[n++] = "--vm";
        if (config->tty)
                argv[n++] = "--tty";
        if (config->open_stdin)
                argv[n++] = "--stdin";
        if (config->stdin_once)
                argv[n++] = "--stdin-once";
        if (in->instance->log_path) {
                argv[n++] = "--log";
                argv[n++] = in->instance->log_path;
                argv[n++] = "--log-max-bytes";
                argv[n++] = max_bytes;
                argv[n++] = "--log-max-files";
                argv[n++] = files ? files : "1";
        }
        argv[n] = NULL;
        return link_spawn((char *const *)argv, dir, lock_fd, root_fd, ret, err);
}

static int open_root(const struct prepare_input *in, int *ret_fd, char **ret_layers_image,
                     struct err *err)
{
        auto_snapshot snapshot = { 0 };
        int r = snapshot_open(in->engine->images, in->instance->id, &snapshot, err);
        if (r < 0)
                return r;
        const struct host_config *host = &in->instance->spec.host;
        const struct id_remap remap = remap_of(&in->engine->remap, host);
        r = rootfs_share_marks(&snapshot, host, NULL, err);
        if (r == 0)
                r = rootfs_mount(&snapshot, &remap, host->auto_remove, ret_fd, err);
        if (r == 0 && host_config_wants_layers(host))
                *ret_layers_image = take_ptr(snapshot.layers_image);
        return r;
}

int prepare_run(const struct prepare_input *in, struct link_process *ret, struct err *err)
{
        auto_free char *dir = instance_run_path(in->engine, in->instance->id);
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return err_set(err, errno, "make '%s'", dir);
        auto_free char *layers_image = NULL;
        auto_fd lock = -1, root = -1;
        int r = link_lock(dir, &lock, err);
        if (r == 0)
                return err_plain(err, EBUSY, "the monitor of its last run is still there");
        if (r > 0)
                r = remap_check(&in->engine->remap, &in->instance->spec.host, err);
        if (r == 0)
                r = check_sources(in->instance, err);
        if (r >= 0)
                r = open_root(in, &root, &layers_image, err);
        if (r >= 0)
                r = make_working_dir(in->instance, root, err);
        if (r >= 0)
                r = write_bundle(in, dir, root, layers_image, err);
        if (r >= 0)
                r = spawn_monitor(in, dir, lock, root, ret, err);
        return r;
}
