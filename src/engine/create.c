/* Creation of instances.
 *
 *   loop    check, reserve the name
 *   worker  resolve the image and merge its configuration
 *   loop    plan mounts and volumes
 *   worker  directories, snapshot, volumes filled from the image, files
 *   loop    one transaction: record, name (guarded), volumes; from here on it exists
 *
 * A failure on the way takes back what was made; after a crash it has no record and
 * reconcile.c deletes it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"
#include "codec/json.h"
#include "engine/core.h"
#include "engine/files.h"
#include "engine/merge.h"
#include "engine/names.h"
#include "engine/record.h"
#include "engine/remove.h"
#include "engine/rootfs.h"
#include "engine/tree.h"
#include "engine/volumes.h"
#include "image/image.h"
#include "image/snapshot.h"
#include "oci/reference.h"
#include "sys/resolve.h"

#define NAME_ATTEMPTS     100
#define SHORT_ID_LENGTH   12
#define SHM_BYTES_DEFAULT (64LL << 20)

struct creation {
        struct engine *engine;
        char *name;
        struct instance_spec *spec;
        struct image *image;
        struct instance *instance;
        struct mount_plan plan;
        struct volume_txn volumes;
        char **warnings;
        bool used; /* the volumes count it */
        bool made; /* directories may exist */
        int r;
        struct err err;
        instance_created *done;
        void *arg;
};

static void creation_free(struct creation *c)
{
        spec_finish(c->spec);
        free(c->spec);
        image_unref(c->image);
        instance_unref(c->instance);
        mount_plan_finish(&c->plan);
        volume_txn_finish(&c->volumes);
        strv_free(c->warnings);
        free(c->name);
        free(c);
}

static void creation_fail(void *arg)
{
        struct creation *c = arg;
        if (c->name && table_get(&c->engine->by_name, c->name) == &name_reserved)
                table_remove(&c->engine->by_name, c->name);
        if (c->used)
                volumes_use(c->instance, -1);
        volumes_unplan(c->engine, &c->volumes);
        if (c->made)
                leftovers_delete(c->engine, c->instance->id, NULL);
        c->done(c->arg, c->r, &c->err, NULL, NULL);
        creation_free(c);
}

/* -- last: the records --------------------------------------------------------- */

static int write_records(struct creation *c)
{
        struct instance *i = c->instance;
        auto_free char *text = instance_record_encode(i);
        auto_free char *key = xasprintf("instances/%s", i->id);
        auto_free char *name = xasprintf("names/%s", i->name);
        struct store_guard guards[] = { { .key = name }, { .key = key } };
        size_t length = c->volumes.length + 2;
        struct store_op *ops = xcalloc(length, sizeof(*ops));
        ops[0] = (struct store_op){
                .kind = STORE_PUT, .key = key, .data = text, .size = strlen(text)
        };
        ops[1] = (struct store_op){
                .kind = STORE_PUT, .key = name, .data = i->id, .size = strlen(i->id)
        };
        if (c->volumes.length)
                memcpy(&ops[2], c->volumes.ops, c->volumes.length * sizeof(*ops));
        int r = store_txn(c->engine->store, guards, ELEMENTS(guards), ops, length, NULL, &c->err);
        free(ops);
        return r;
}

static void creation_commit(void *arg)
{
        struct creation *c = arg;
        struct instance *i = c->instance;
        if (c->r == 0)
                c->r = write_records(c);
        if (c->r < 0) {
                creation_fail(c);
                return;
        }
        instance_enlist(i);
        INSTANCE_EVENT(i, "create");
        char *none[] = { NULL };
        c->done(c->arg, 0, NULL, i, c->warnings ? c->warnings : none);
        creation_free(c);
}

/* -- second worker: files ------------------------------------------------------ */

static int make_host_dirs(const struct mount_plan *plan, struct err *err)
{
        for (char **path = plan->host_dirs; path && *path; path++) {
                struct stat st;
                if (stat(*path, &st) == 0)
                        continue;
                int r = file_make_dirs(AT_FDCWD, *path, 0755, err);
                if (r < 0)
                        return err_wrap(err, "error while creating mount source path '%s'", *path);
        }
        for (char **path = plan->host_required; path && *path; path++) {
                struct stat st;
                if (stat(*path, &st) < 0)
                        return err_plain(err, EINVAL,
                                         "invalid mount config for type \"bind\": bind source path "
                                         "does not exist: %s",
                                         *path);
        }
        return 0;
}

/* Fills an empty volume with what the image has at its place. *root_fd is opened when needed. */
static int fill_volume(struct creation *c, const struct snapshot *snapshot,
                       const struct instance_mount *m, int *root_fd, struct err *err)
{
        auto_fd to = open(m->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (to < 0)
                return err_set(err, errno, "open volume %s", m->name);
        if (!tree_is_empty(to))
                return 0;
        (void)c;
        if (*root_fd < 0) {
                int r = rootfs_mount(snapshot, NULL, true, root_fd, err);
                if (r < 0)
                        return r;
        }
        auto_fd from = -1;
        int r = resolve_open(*root_fd, m->destination, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, &from,
                             err);
        if (r == -ENOENT || r == -ENOTDIR) {
                err_clear(err);
                return 0;
        }
        if (r == 0)
                r = tree_copy(from, to, err);
        return r < 0 ? err_wrap(err, "fill volume %s from the image", m->name) : 0;
}

static int fill_volumes(struct creation *c, const struct snapshot *snapshot, struct err *err)
{
        auto_fd root_fd = -1;
        for (size_t n = 0; n < c->instance->mounts_length; n++) {
                const struct instance_mount *m = &c->instance->mounts[n];
                if (!m->name || !m->copy_up)
                        continue;
                int r = fill_volume(c, snapshot, m, &root_fd, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int make_files(struct creation *c, struct err *err)
{
        struct instance *i = c->instance;
        int r = make_host_dirs(&c->plan, err);
        for (size_t n = 0; r == 0 && n < c->plan.volumes_length; n++)
                r = volume_make_dir(c->engine->volumes_dir, c->plan.volumes[n].name, err);
        if (r < 0)
                return r;
        auto_free char *dir = instance_root_path(c->engine, i->id);
        c->made = true;
        if (mkdir(dir, 0710) < 0)
                return err_set(err, errno, "make '%s'", dir);
        auto_snapshot snapshot = { 0 };
        r = snapshot_prepare(c->engine->images, i->id, c->image, &snapshot, err);
        if (r == 0)
                r = fill_volumes(c, &snapshot, err);
        if (r == 0)
                r = files_write(i, err);
        return r;
}

static void files_in_worker(void *arg)
{
        struct creation *c = arg;
        c->r = make_files(c, &c->err);
}

/* -- middle: mounts ------------------------------------------------------------ */

static int check_other(struct engine *engine, const char *mode, struct err *err)
{
        const char *name = mode ? str_after(mode, "container:") : NULL;
        return name && !instance_find(engine, name, err) ? -err->code : 0;
}

static int collect_donors(struct creation *c, struct mount_donor **donors, size_t *length)
{
        for (char **from = c->spec->host.volumes_from; from && *from; from++) {
                auto_free char *name = NULL;
                struct mount_donor donor = { 0 };
                int r = volumes_from_parse(*from, &name, &donor.read_only, &c->err);
                if (r < 0)
                        return r;
                const struct instance *other = instance_find(c->engine, name, &c->err);
                if (!other)
                        return -c->err.code;
                donor.mounts = other->mounts;
                donor.mounts_length = other->mounts_length;
                *donors = xrealloc(*donors, *length + 1, sizeof(**donors));
                (*donors)[(*length)++] = donor;
        }
        return 0;
}

static int plan_mounts(struct creation *c)
{
        struct mount_donor *donors = NULL;
        size_t length = 0;
        int r = collect_donors(c, &donors, &length);
        if (r == 0)
                r = mount_plan_make(c->spec, NULL, donors, length, c->engine->volumes_dir, &c->plan,
                                    &c->err);
        free(donors);
        if (r == 0)
                volumes_plan(c->engine, &c->plan, &c->volumes);
        return r;
}

/* What docker fills in for what was left open. */
static void fill_defaults(struct instance_spec *spec, const char *id)
{
        struct host_config *h = &spec->host;
        if (str_empty(spec->config.hostname) && !streq(h->uts_mode, "host") &&
            !streq(h->network_mode, "host")) {
                free(spec->config.hostname);
                spec->config.hostname = xstrndup(id, SHORT_ID_LENGTH);
        }
        if (h->shm_size == 0)
                h->shm_size = SHM_BYTES_DEFAULT;
        struct {
                char **slot;
                const char *value;
        } texts[] = {
                { &h->log_config.type, "json-file" },
                { &h->restart_policy.name, "no" },
                { &h->network_mode, "default" },
                { &h->ipc_mode, "private" },
                { &h->cgroupns_mode, h->privileged ? "host" : "private" },
        };
        for (size_t i = 0; i < ELEMENTS(texts); i++) {
                if (!str_empty(*texts[i].slot))
                        continue;
                free(*texts[i].slot);
                *texts[i].slot = xstrdup(texts[i].value);
        }
}

static struct instance *build_instance(struct creation *c, const char *id)
{
        struct instance *i = instance_new(c->engine, id);
        i->name = xstrdup(c->name);
        i->image_id = xstrdup(c->image->id.text);
        i->mounts = take_ptr(c->plan.mounts);
        i->mounts_length = c->plan.mounts_length;
        c->plan.mounts_length = 0;
        i->created_ns = clock_realtime_ns();
        fill_defaults(c->spec, id);
        for (char **arg = c->spec->config.entrypoint; arg && *arg; arg++)
                strv_push(&i->argv, *arg);
        for (char **arg = c->spec->config.cmd; arg && *arg; arg++)
                strv_push(&i->argv, *arg);
        i->spec = *c->spec;
        *c->spec = (struct instance_spec){ 0 };
        instance_set_paths(i);
        return i;
}

static void image_resolved(void *arg)
{
        struct creation *c = arg;
        const struct host_config *host = &c->spec->host;
        if (c->r == 0)
                c->r = check_other(c->engine, host->network_mode, &c->err);
        if (c->r == 0)
                c->r = check_other(c->engine, host->pid_mode, &c->err);
        if (c->r == 0)
                c->r = check_other(c->engine, host->ipc_mode, &c->err);
        if (c->r == 0)
                c->r = plan_mounts(c);
        if (c->r < 0) {
                creation_fail(c);
                return;
        }
        char id[INSTANCE_ID_SIZE];
        rand_hex(id, INSTANCE_ID_SIZE - 1);
        c->instance = build_instance(c, id);
        volumes_use(c->instance, 1);
        c->used = true;
        workers_submit(c->engine->workers, files_in_worker, creation_commit, c);
}

/* -- first worker: the image --------------------------------------------------- */

/* docker's words: with the tag that was meant. */
static void name_missing(struct creation *c)
{
        const char *image = c->spec->config.image;
        auto_reference reference = { 0 };
        struct err why = { 0 };
        if (c->r != -ENOENT || strspn(image, "0123456789abcdef") == strlen(image) ||
            str_starts(image, "sha256:"))
                return;
        if (oci_reference_parse(image, &reference, &why) < 0) {
                c->err = why;
                c->r = -why.code;
                return;
        }
        auto_free char *familiar = oci_reference_familiar(&reference);
        err_plain(&c->err, ENOENT, "No such image: %s", familiar);
}

static void image_in_worker(void *arg)
{
        struct creation *c = arg;
        c->r = image_resolve(c->engine->images, c->spec->config.image, &c->image, &c->err);
        if (c->r < 0) {
                name_missing(c);
                return;
        }
        config_merge(&c->spec->config, &c->image->spec.config, &c->warnings);
        const struct instance_config *config = &c->spec->config;
        if ((!config->entrypoint || !*config->entrypoint) && (!config->cmd || !*config->cmd))
                c->r = err_plain(&c->err, EINVAL, "no command specified");
}

/* -- first --------------------------------------------------------------------- */

static int reserve_name(struct creation *c, const char *name)
{
        struct engine *engine = c->engine;
        if (str_empty(name)) {
                for (unsigned attempt = 0; attempt < NAME_ATTEMPTS && !c->name; attempt++) {
                        c->name = name_draw(attempt / 3);
                        if (table_get(&engine->by_name, c->name)) {
                                free(c->name);
                                c->name = NULL;
                        }
                }
                if (!c->name) {
                        char digits[SHORT_ID_LENGTH + 1];
                        rand_hex(digits, SHORT_ID_LENGTH);
                        c->name = xasprintf("instance_%s", digits);
                }
                table_put(&engine->by_name, c->name, &name_reserved);
                return 0;
        }
        if (*name == '/')
                name++;
        int r = name_check(name, &c->err);
        if (r < 0)
                return r;
        const struct instance *owner = table_get(&engine->by_name, name);
        if (owner)
                return err_plain(
                        &c->err, EEXIST,
                        "Conflict. The container name \"/%s\" is already in use by "
                        "container \"%s\". You have to remove (or rename) that container to "
                        "be able to reuse that name.",
                        name, owner == (void *)&name_reserved ? "being created" : owner->id);
        c->name = xstrdup(name);
        table_put(&engine->by_name, c->name, &name_reserved);
        return 0;
}

/* Before the checks, since what a virtual machine cannot do depends on it. */
static void choose_runtime(struct host_config *host, const char *name)
{
        if (!str_empty(host->runtime))
                return;
        const char *chosen = host_config_wants_vm(host) ? "isle-vm" : name;
        free(host->runtime);
        host->runtime = xstrdup(chosen);
}

/* Kept with the instance, whose writable layer is of that kind from now on, and whose programs
 * may have looked at the processor. */
static void choose_machine(struct host_config *host, const struct engine_settings *settings)
{
        if (!host_config_wants_vm(host))
                return;
        if (!json_map_get(host->annotations, SPEC_VM_ROOTFS) && !streq(settings->vm_rootfs, "fs"))
                json_map_set(&host->annotations, SPEC_VM_ROOTFS, settings->vm_rootfs);
        if (!json_map_get(host->annotations, SPEC_VM_CPU_MODEL) && settings->vm_cpu_model)
                json_map_set(&host->annotations, SPEC_VM_CPU_MODEL, settings->vm_cpu_model);
}

void instance_create(struct engine *engine, const char *name, const struct instance_spec *spec,
                     instance_created *done, void *arg)
{
        struct creation *c = new0(struct creation);
        *c = (struct creation){ .engine = engine, .done = done, .arg = arg };
        c->spec = spec_copy(spec);
        choose_runtime(&c->spec->host, engine->settings.default_runtime);
        choose_machine(&c->spec->host, &engine->settings);
        c->r = spec_check(c->spec, &c->warnings, &c->err);
        if (c->r == 0)
                c->r = remap_check(&engine->remap, &c->spec->host, &c->err);
        if (c->r == 0)
                c->r = reserve_name(c, name);
        if (c->r < 0) {
                loop_defer(engine->loop, creation_fail, c);
                return;
        }
        workers_submit(engine->workers, image_in_worker, image_resolved, c);
}
