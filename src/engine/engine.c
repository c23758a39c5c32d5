#include "engine/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/child.h"
#include "engine/core.h"
#include "engine/operation.h"
#include "engine/probe.h"
#include "engine/run.h"
#include "sys/cgroup.h"

#define STREAM_THREADS_DEFAULT 16

static const char *const init_paths[] = { "/usr/bin/tini-static", "/usr/bin/docker-init",
                                          "/usr/libexec/docker/docker-init", "/sbin/docker-init" };

static char *absolute(const char *path)
{
        char *whole = realpath(path, NULL);
        return whole ? whole : xstrdup(path);
}

/* A program beside the running one; else by its name, for PATH. */
static char *find_program(const char *name)
{
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n > 0) {
                self[n] = '\0';
                char *slash = strrchr(self, '/');
                *slash = '\0';
                char *path = xasprintf("%s/%s", self, name);
                if (access(path, X_OK) == 0)
                        return path;
                free(path);
        }
        return xstrdup(name);
}

static char *find_init(void)
{
        for (size_t i = 0; i < ELEMENTS(init_paths); i++)
                if (access(init_paths[i], X_OK) == 0)
                        return xstrdup(init_paths[i]);
        return NULL;
}

/* Settings with every member filled in; engine->owned has the strings. */
static void fill_settings(struct engine *engine, const struct engine_settings *in)
{
        struct engine_settings *s = &engine->settings;
        char **own = engine->owned;
        own[0] = absolute(in->root_dir ? in->root_dir : "/var/lib/isle");
        own[1] = absolute(in->run_dir ? in->run_dir : "/run/isle");
        own[2] = in->runtime_path ? xstrdup(in->runtime_path) : find_program("isle-runtime");
        own[3] = in->runtime_root ? xstrdup(in->runtime_root) : xasprintf("%s/runtime", own[1]);
        own[4] = in->monitor_path ? xstrdup(in->monitor_path) : find_program("isle-monitor");
        own[5] = in->init_path ? xstrdup(in->init_path) : find_init();
        own[6] = xstrdup(in->cgroup_parent ? in->cgroup_parent : "/isle");
        own[7] = xstrdup(in->default_runtime ? in->default_runtime : "isle-runtime");
        own[8] = xstrdup(in->vm_rootfs ? in->vm_rootfs : "fs");
        own[9] = in->vm_cpu_model ? xstrdup(in->vm_cpu_model) : NULL;
        *s = (struct engine_settings){
                .root_dir = own[0],
                .run_dir = own[1],
                .runtime_path = own[2],
                .runtime_root = own[3],
                .monitor_path = own[4],
                .init_path = own[5],
                .cgroup_parent = own[6],
                .default_runtime = own[7],
                .vm_rootfs = own[8],
                .vm_cpu_model = own[9],
                .stream_threads = in->stream_threads ? in->stream_threads : STREAM_THREADS_DEFAULT,
        };
        engine->instances_dir = xasprintf("%s/instances", s->root_dir);
        engine->volumes_dir = xasprintf("%s/volumes", s->root_dir);
        engine->run_instances_dir = xasprintf("%s/instances", s->run_dir);
        engine->run_execs_dir = xasprintf("%s/execs", s->run_dir);
}

static int make_dirs(struct engine *engine, struct err *err)
{
        const struct {
                const char *path;
                mode_t mode;
        } dirs[] = {
                { engine->settings.root_dir, 0711 },     { engine->settings.run_dir, 0711 },
                { engine->instances_dir, 0710 },         { engine->volumes_dir, 0701 },
                { engine->run_instances_dir, 0700 },     { engine->run_execs_dir, 0700 },
                { engine->settings.runtime_root, 0700 },
        };
        for (size_t i = 0; i < ELEMENTS(dirs); i++) {
                int r = file_make_dirs(AT_FDCWD, dirs[i].path, dirs[i].mode, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Whether the kernel counts swap: version 1 needs swapaccount, version 2 CONFIG_SWAP. */
static bool has_swap_limit(void)
{
        return access("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", F_OK) == 0 ||
               access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
}

int engine_create(struct loop *loop, struct workers *workers, struct store *store,
                  struct image_store *images, const struct engine_settings *settings,
                  struct engine **ret, struct err *err)
{
        struct engine *engine = new0(struct engine);
        *engine = (struct engine){
                .loop = loop, .workers = workers, .store = store, .images = images
        };
        list_init(&engine->instances);
        list_init(&engine->subscriptions);
        list_init(&engine->children);
        list_init(&engine->commands);
        list_init(&engine->log_streams);
        list_init(&engine->adoptions);
        fill_settings(engine, settings);
        engine->swap_limit = has_swap_limit();
        int r = 0;
        if (!runtime_is_known(engine->settings.default_runtime))
                r = err_plain(err, EINVAL,
                              "--default-runtime '%s' is not known; use isle-runtime or isle-vm",
                              engine->settings.default_runtime);
        if (r == 0 && !vm_rootfs_is_known(engine->settings.vm_rootfs))
                r = err_plain(err, EINVAL, "--vm-rootfs '%s' is not known; use fs or erofs",
                              engine->settings.vm_rootfs);
        const char *model = engine->settings.vm_cpu_model;
        if (r == 0 && model && !vm_cpu_model_is_known(model))
                r = err_plain(err, EINVAL,
                              "--vm-cpu-model '%s' is not known; there are " SPEC_VM_CPU_MODELS,
                              model);
        if (r == 0)
                r = remap_load(settings->userns_remap, &engine->remap, err);
        if (r == 0)
                r = make_dirs(engine, err);
        if (r == 0)
                r = workers_create(loop, engine->settings.stream_threads, &engine->streams, err);
        if (r == 0)
                r = volumes_load(engine, err);
        if (r == 0)
                r = engine_reconcile(engine, err);
        if (r < 0) {
                engine_destroy(engine);
                return r;
        }
        *ret = engine;
        return 0;
}

static void forget_instance(struct instance *instance)
{
        if (instance->private->dirty)
                instance_save(instance);
        operations_drop(instance);
        run_forget(instance);
        probes_forget(instance);
        instance_cancel_restart(instance);
        instance_delist(instance);
}

bool engine_is_settled(const struct engine *engine)
{
        return engine->endings == 0 && list_empty(&engine->commands);
}

void engine_destroy(struct engine *engine)
{
        if (!engine)
                return;
        if (engine->streams)
                workers_destroy(engine->streams);
        logs_destroy(engine);
        adoptions_destroy(engine);
        execs_destroy(engine);
        struct instance *instance;
        while ((instance = instance_first(engine)))
                forget_instance(instance);
        commands_destroy(engine);
        children_destroy(engine);
        if (engine->settings.cgroup_parent[0] == '/') /* it stays while instances run */
                cgroup_trim(engine->settings.cgroup_parent);
        volumes_destroy(engine);
        events_finish(engine);
        table_finish(&engine->by_id);
        table_finish(&engine->by_name);
        table_finish(&engine->execs);
        for (size_t i = 0; i < ELEMENTS(engine->owned); i++)
                free(engine->owned[i]);
        free(engine->instances_dir);
        free(engine->volumes_dir);
        free(engine->run_instances_dir);
        free(engine->run_execs_dir);
        free(engine);
}

const struct engine_settings *engine_settings(const struct engine *engine)
{
        return &engine->settings;
}
