#include "engine/view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/path.h"
#include "engine/rootfs.h"
#include "engine/run.h"
#include "image/snapshot.h"

static struct view *view_new(struct instance *instance)
{
        struct view *view = new0(struct view);
        *view = (struct view){
                .references = 1,
                .instance = instance_ref(instance),
                .pid = instance_is_running(instance) ? instance->pid : 0,
                .read_only_root = instance->spec.host.readonly_rootfs,
                .root_fd = -1,
        };
        const struct host_config *host = &instance->spec.host;
        view->guest_answers = view->pid && host_config_wants_vm(host) &&
                              instance->state != INSTANCE_PAUSED;
        /* A root that is shared is what is left where the guest cannot be asked. */
        view->in_guest = view->pid && host_config_wants_vm(host) &&
                         (host_config_wants_layers(host) || view->guest_answers);
        if (view->pid)
                view->remap = remap_of(&instance_engine(instance)->remap, host);
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *m = &instance->mounts[i];
                if (streq(m->type, "tmpfs"))
                        continue;
                view->mounts = xrealloc(view->mounts, view->mounts_length + 1,
                                        sizeof(*view->mounts));
                view->mounts[view->mounts_length++] = (struct view_mount){ xstrdup(m->destination),
                                                                           xstrdup(m->source),
                                                                           m->read_write };
        }
        return view;
}

int view_create(struct instance *instance, struct view **ret, struct err *err)
{
        const struct run *run = instance->private->run;
        if (!instance_is_running(instance) && run && run->phase < RUN_FAILED)
                return err_plain(err, EBUSY, "container %s is starting", instance->name);
        *ret = view_new(instance);
        return 0;
}

void view_unref(struct view *view)
{
        if (!view || --view->references)
                return;
        for (size_t i = 0; i < view->mounts_length; i++) {
                free(view->mounts[i].destination);
                free(view->mounts[i].source);
        }
        free(view->mounts);
        close_fd(&view->root_fd);
        instance_unref(view->instance);
        free(view);
}

int view_open(struct view *view, struct err *err)
{
        if (view->pid)
                return instance_open_live_root(view->instance, view->pid, NULL, &view->root_fd,
                                               err);
        auto_snapshot snapshot = { 0 };
        int r = snapshot_open(instance_engine(view->instance)->images, view->instance->id,
                              &snapshot, err);
        if (r == 0)
                r = rootfs_share_marks(&snapshot, &view->instance->spec.host, NULL, err);
        if (r == 0)
                r = rootfs_mount(&snapshot, NULL, false, &view->root_fd, err);
        return r;
}

/* What follows `prefix` in `path` at a component's border; NULL where it does not start so. */
static const char *path_after(const char *path, const char *prefix)
{
        const char *rest = str_after(path, prefix);
        return rest && (*rest == '/' || !*rest) ? rest : NULL;
}

int view_locate(const struct view *view, const char *path, int *ret_fd, char **ret_path,
                bool *ret_read_only, bool *ret_in_guest, struct err *err)
{
        auto_free char *absolute = xasprintf("/%s", path);
        auto_free char *clean = NULL;
        int r = path_clean(absolute, &clean, err);
        if (r < 0)
                return r;
        const struct view_mount *best = NULL;
        const char *rest = clean;
        for (size_t i = 0; i < view->mounts_length; i++) {
                const char *after = path_after(clean, view->mounts[i].destination);
                if (after &&
                    (!best || strlen(view->mounts[i].destination) > strlen(best->destination))) {
                        best = &view->mounts[i];
                        rest = after;
                }
        }
        bool direct = !best || (view->pid && !host_config_wants_vm(&view->instance->spec.host));
        auto_fd fd = direct ? fcntl(view->root_fd, F_DUPFD_CLOEXEC, 3)
                            : open(best->source, O_PATH | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", direct ? clean : best->source);
        if (ret_read_only)
                *ret_read_only = best ? !best->read_write : view->read_only_root;
        if (ret_in_guest)
                *ret_in_guest = !best && view->in_guest;
        *ret_path = xstrdup(direct ? clean : *rest ? rest : "/");
        *ret_fd = take_fd(fd);
        return 0;
}
