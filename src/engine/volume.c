#include "engine/volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"
#include "codec/json.h"
#include "engine/core.h"
#include "engine/filter.h"
#include "engine/names.h"
#include "engine/operation.h"
#include "engine/tree.h"
#include "engine/volumes.h"

#define T struct volume_request
static const struct json_field request_fields[] = {
        JSON_FIELD(T, "Name", JSON_STRING, name, 0),
        JSON_FIELD(T, "Driver", JSON_STRING, driver, 0),
        JSON_FIELD(T, "DriverOpts", JSON_MAP, driver_opts, 0),
        JSON_FIELD(T, "Labels", JSON_MAP, labels, 0),
        JSON_FIELD(T, "ClusterVolumeSpec", JSON_ANY, cluster_volume_spec, 0),
};
const struct json_shape volume_request_shape = JSON_SHAPE("volume", T, request_fields);
#undef T

/* The record under "volumes/NAME". */
#define T struct volume
static const struct json_field volume_fields[] = {
        JSON_FIELD(T, "name", JSON_STRING, name, JSON_REQUIRED),
        JSON_FIELD(T, "labels", JSON_MAP, labels, 0),
        JSON_FIELD(T, "options", JSON_MAP, options, 0),
        JSON_FIELD(T, "anonymous", JSON_BOOL, anonymous, 0),
        JSON_FIELD(T, "created_ns", JSON_INT, created_ns, 0),
};
static const struct json_shape volume_shape = JSON_SHAPE("volume record", T, volume_fields);
#undef T

struct volume_private {
        struct engine *engine;
        bool removing;
};

static void volume_free(struct volume *volume)
{
        free(volume->mountpoint);
        free(volume->private);
        json_free(&volume_shape, volume);
        free(volume);
}

/* Completes what the record does not hold and puts it into the table. */
static void enlist(struct engine *engine, struct volume *volume)
{
        volume->mountpoint = xasprintf("%s/%s/_data", engine->volumes_dir, volume->name);
        volume->private = new0(struct volume_private);
        volume->private->engine = engine;
        table_put(&engine->volumes, volume->name, volume);
}

static void forget(struct volume *volume)
{
        table_remove(&volume->private->engine->volumes, volume->name);
        volume_free(volume);
}

static struct volume *make(struct engine *engine, const char *name, char *const *labels,
                           bool anonymous)
{
        struct volume *volume = new0(struct volume);
        *volume = (struct volume){
                .name = xstrdup(name),
                .labels = labels ? strv_copy(labels) : NULL,
                .anonymous = anonymous,
                .created_ns = clock_realtime_ns(),
        };
        enlist(engine, volume);
        return volume;
}

static void volume_event(struct engine *engine, const char *name, const char *action)
{
        char *attributes[] = { "driver=local", NULL };
        engine_event_emit(engine, "volume", action, name, attributes);
}

/* -- transactions -------------------------------------------------------------- */

static void add_op(struct volume_txn *txn, enum store_op_kind kind, const char *name, char *text)
{
        char *key = xasprintf("volumes/%s", name);
        strv_push_take(&txn->strings, key);
        if (text)
                strv_push_take(&txn->strings, text);
        txn->ops = xrealloc(txn->ops, txn->length + 1, sizeof(*txn->ops));
        txn->ops[txn->length++] = (struct store_op){
                .kind = kind, .key = key, .data = text, .size = text ? strlen(text) : 0
        };
        strv_push(&txn->made, name);
}

void volumes_plan(struct engine *engine, const struct mount_plan *plan, struct volume_txn *txn)
{
        for (size_t i = 0; i < plan->volumes_length; i++) {
                const struct mount_volume *wanted = &plan->volumes[i];
                if (table_get(&engine->volumes, wanted->name))
                        continue;
                struct volume *volume = make(engine, wanted->name, wanted->labels,
                                             wanted->anonymous);
                add_op(txn, STORE_PUT, volume->name,
                       json_encode_text(&volume_shape, volume, false));
                volume_event(engine, volume->name, "create");
        }
}

void volumes_unplan(struct engine *engine, struct volume_txn *txn)
{
        for (char **name = txn->made; name && *name; name++) {
                struct volume *volume = table_get(&engine->volumes, *name);
                if (volume && volume->users == 0)
                        forget(volume);
        }
}

void volume_txn_finish(struct volume_txn *txn)
{
        free(txn->ops);
        strv_free(txn->strings);
        strv_free(txn->made);
        *txn = (struct volume_txn){ 0 };
}

void volumes_use(const struct instance *instance, int change)
{
        struct engine *engine = instance_engine(instance);
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *m = &instance->mounts[i];
                struct volume *volume = m->name ? table_get(&engine->volumes, m->name) : NULL;
                if (volume)
                        volume->users += (unsigned)change;
        }
}

void volumes_drop_anonymous(const struct instance *instance, struct volume_txn *txn)
{
        struct engine *engine = instance_engine(instance);
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *m = &instance->mounts[i];
                struct volume *volume = m->name ? table_get(&engine->volumes, m->name) : NULL;
                if (!volume || !volume->anonymous || volume->users > 0)
                        continue;
                add_op(txn, STORE_DELETE, volume->name, NULL);
        }
}

/* -- directories --------------------------------------------------------------- */

int volume_make_dir(const char *volumes_dir, const char *name, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s/_data", volumes_dir, name);
        int r = file_make_dirs(AT_FDCWD, path, 0755, err);
        if (r < 0)
                return r;
        /* Only root may look around among the volumes; in one, its own modes count. */
        auto_free char *parent = xasprintf("%s/%s", volumes_dir, name);
        return chmod(parent, 0701) < 0 ? err_set(err, errno, "chmod '%s'", parent) : 0;
}

int volume_remove_dir(const char *volumes_dir, const char *name, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s", volumes_dir, name);
        return file_remove_tree(AT_FDCWD, path, err);
}

/* Takes the directory out of the way at once, so that a new volume may have its name.
 * The name it has then, on the heap; NULL where there is none. */
static char *bury_dir(struct engine *engine, const char *name)
{
        char suffix[17];
        rand_hex(suffix, 16);
        auto_free char *from = xasprintf("%s/%s", engine->volumes_dir, name);
        char *grave = xasprintf(VOLUME_GRAVE_PREFIX "%s", suffix);
        auto_free char *to = xasprintf("%s/%s", engine->volumes_dir, grave);
        if (rename(from, to) == 0)
                return grave;
        if (errno != ENOENT)
                log_warning("cannot move volume %s away: %s", name, strerror(errno));
        free(grave);
        return NULL;
}

struct removal {
        char *volumes_dir, *grave;
};

static void remove_in_worker(void *arg)
{
        struct removal *removal = arg;
        struct err err = { 0 };
        if (volume_remove_dir(removal->volumes_dir, removal->grave, &err) < 0)
                log_warning("cannot remove a volume's files: %s", err_text(&err));
        free(removal->volumes_dir);
        free(removal->grave);
        free(removal);
}

/* `grave` is taken. */
static void delete_grave(struct engine *engine, char *grave)
{
        struct removal *removal = new0(struct removal);
        *removal = (struct removal){ xstrdup(engine->volumes_dir), grave };
        workers_submit(engine->workers, remove_in_worker, NULL, removal);
}

static void remove_dir_later(struct engine *engine, const char *name)
{
        char *grave = bury_dir(engine, name);
        if (grave)
                delete_grave(engine, grave);
}

void volumes_dropped(struct engine *engine, struct volume_txn *txn)
{
        char **graves = NULL;
        for (char **name = txn->made; name && *name; name++) {
                struct volume *volume = table_get(&engine->volumes, *name);
                char *grave = bury_dir(engine, *name);
                if (grave)
                        strv_push_take(&graves, grave);
                volume_event(engine, *name, "destroy");
                if (volume)
                        forget(volume);
        }
        strv_free(txn->made);
        txn->made = graves;
}

/* -- requests ------------------------------------------------------------------ */

struct creation {
        struct engine *engine;
        char *name;
        volume_created *done;
        void *arg;
        int r;
        struct err err;
};

static void create_in_worker(void *arg)
{
        struct creation *creation = arg;
        creation->r = volume_make_dir(creation->engine->volumes_dir, creation->name,
                                      &creation->err);
}

static void create_done(void *arg)
{
        struct creation *creation = arg;
        struct volume *volume = table_get(&creation->engine->volumes, creation->name);
        if (creation->r == 0 && !volume)
                creation->r = err_plain(&creation->err, EBUSY, "volume %s was removed meanwhile",
                                        creation->name);
        if (creation->r < 0 && volume && volume->users == 0)
                forget(volume);
        creation->done(creation->arg, creation->r, creation->r < 0 ? &creation->err : NULL,
                       creation->r < 0 ? NULL : volume);
        free(creation->name);
        free(creation);
}

static int check_request(const struct volume_request *request, struct err *err)
{
        if (!str_empty(request->driver) && !streq(request->driver, "local"))
                return err_plain(err, ENOENT,
                                 "error looking up volume plugin %s: plugin \"%s\" not found",
                                 request->driver, request->driver);
        if (request->driver_opts && *request->driver_opts)
                return err_plain(err, ENOTSUP,
                                 "options of the local volume driver are not "
                                 "implemented");
        if (request->cluster_volume_spec)
                return err_plain(err, ENOTSUP, "cluster volumes are not implemented");
        if (!str_empty(request->name) && !name_is_valid(request->name))
                return err_plain(err, EINVAL,
                                 "create %s: \"%s\" includes invalid characters for a local volume "
                                 "name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you "
                                 "intended to pass a host directory, use absolute path",
                                 request->name, request->name);
        return 0;
}

static int record_new(struct engine *engine, struct volume *volume, struct err *err)
{
        auto_free char *text = json_encode_text(&volume_shape, volume, false);
        auto_free char *key = xasprintf("volumes/%s", volume->name);
        return store_put(engine->store, key, text, strlen(text), err);
}

static void refuse(void *arg)
{
        struct creation *creation = arg;
        creation->done(creation->arg, creation->r, &creation->err, NULL);
        free(creation->name);
        free(creation);
}

void volume_create(struct engine *engine, const struct volume_request *request,
                   volume_created *done, void *arg)
{
        struct creation *creation = new0(struct creation);
        *creation = (struct creation){ .engine = engine, .done = done, .arg = arg };
        creation->r = check_request(request, &creation->err);
        char drawn[65];
        rand_hex(drawn, 64);
        bool anonymous = str_empty(request->name);
        creation->name = xstrdup(anonymous ? drawn : request->name);
        struct volume *volume = table_get(&engine->volumes, creation->name);
        if (creation->r == 0 && !volume) {
                volume = make(engine, creation->name, request->labels, anonymous);
                creation->r = record_new(engine, volume, &creation->err);
                if (creation->r < 0)
                        forget(volume);
                else
                        volume_event(engine, creation->name, "create");
        }
        if (creation->r < 0)
                loop_defer(engine->loop, refuse, creation);
        else
                workers_submit(engine->workers, create_in_worker, create_done, creation);
}

struct volume *volume_find(struct engine *engine, const char *name, struct err *err)
{
        struct volume *volume = table_get(&engine->volumes, name);
        if (!volume)
                err_plain(err, ENOENT, "get %.200s: no such volume", name);
        return volume;
}

/* The smallest name greater than `after` (NULL: the smallest of all). */
static struct volume *next_by_name(struct engine *engine, const char *after)
{
        struct volume *found = NULL;
        const struct table_entry *entry;
        for (size_t cursor = 0; (entry = table_next(&engine->volumes, &cursor));) {
                struct volume *volume = entry->value;
                if ((!after || strcmp(volume->name, after) > 0) &&
                    (!found || strcmp(volume->name, found->name) < 0))
                        found = volume;
        }
        return found;
}

struct volume *volume_first(struct engine *engine)
{
        return next_by_name(engine, NULL);
}

struct volume *volume_next(struct volume *volume)
{
        return next_by_name(volume->private->engine, volume->name);
}

/* Ids of the instances that mount it, joined. */
static char *users_text(struct engine *engine, const char *name)
{
        auto_strv ids = NULL;
        for (struct instance *i = instance_first(engine); i; i = instance_next(i))
                for (size_t n = 0; n < i->mounts_length; n++)
                        if (streq(i->mounts[n].name, name)) {
                                strv_push(&ids, i->id);
                                break;
                        }
        return strv_join(ids, ", ");
}

static int remove_now(struct engine *engine, struct volume *volume, struct err *err)
{
        if (volume->users > 0) {
                auto_free char *users = users_text(engine, volume->name);
                return err_plain(err, EBUSY, "remove %s: volume is in use - [%s]", volume->name,
                                 users);
        }
        auto_free char *key = xasprintf("volumes/%s", volume->name);
        int r = store_delete(engine->store, key, err);
        if (r < 0)
                return r;
        remove_dir_later(engine, volume->name);
        volume_event(engine, volume->name, "destroy");
        forget(volume);
        return 0;
}

void volume_remove(struct engine *engine, const char *name, bool force, engine_done *done,
                   void *arg)
{
        struct err err = { 0 };
        struct volume *volume = volume_find(engine, name, &err);
        int r = volume ? remove_now(engine, volume, &err) : force ? 0 : -ENOENT;
        answer_later(engine, r, &err, done, arg);
}

/* -- prune --------------------------------------------------------------------- */

struct prune {
        char *volumes_dir;
        char **names, **graves;
        uint64_t bytes;
        engine_pruned *done;
        void *arg;
};

static bool prune_wants(const struct prune_filter *filter, const struct volume *volume)
{
        if (volume->users || (!filter->all && !volume->anonymous))
                return false;
        for (char **label = filter->labels; label && *label; label++)
                if (!label_matches(volume->labels, *label))
                        return false;
        for (char **label = filter->labels_not; label && *label; label++)
                if (label_matches(volume->labels, *label))
                        return false;
        return true;
}

static void prune_in_worker(void *arg)
{
        struct prune *prune = arg;
        for (char **grave = prune->graves; grave && *grave; grave++) {
                auto_free char *path = xasprintf("%s/%s", prune->volumes_dir, *grave);
                prune->bytes += tree_bytes(path);
                struct err err = { 0 };
                if (volume_remove_dir(prune->volumes_dir, *grave, &err) < 0)
                        log_warning("cannot remove a volume's files: %s", err_text(&err));
        }
}

static void prune_done(void *arg)
{
        struct prune *prune = arg;
        char *none[] = { NULL };
        prune->done(prune->arg, 0, NULL, prune->names ? prune->names : none, prune->bytes);
        strv_free(prune->names);
        strv_free(prune->graves);
        free(prune->volumes_dir);
        free(prune);
}

void volume_prune(struct engine *engine, const struct prune_filter *filter, engine_pruned *done,
                  void *arg)
{
        struct prune *prune = new0(struct prune);
        *prune = (struct prune){ .volumes_dir = xstrdup(engine->volumes_dir),
                                 .done = done,
                                 .arg = arg };
        struct volume *next;
        for (struct volume *volume = volume_first(engine); volume; volume = next) {
                next = volume_next(volume);
                auto_free char *key = xasprintf("volumes/%s", volume->name);
                if (!prune_wants(filter, volume) || store_delete(engine->store, key, NULL) < 0)
                        continue;
                strv_push(&prune->names, volume->name);
                char *grave = bury_dir(engine, volume->name);
                if (grave)
                        strv_push_take(&prune->graves, grave);
                volume_event(engine, volume->name, "destroy");
                forget(volume);
        }
        workers_submit(engine->workers, prune_in_worker, prune_done, prune);
}

/* -- start and end ------------------------------------------------------------- */

/* Directories without a record: graves are deleted, others become volumes. */
static void adopt_strays(struct engine *engine)
{
        auto_dir dir = opendir(engine->volumes_dir);
        struct dirent *entry;
        while (dir && (entry = readdir(dir))) {
                const char *name = entry->d_name;
                if (str_starts(name, VOLUME_GRAVE_PREFIX)) {
                        delete_grave(engine, xstrdup(name));
                        continue;
                }
                auto_free char *data = xasprintf("%s/%s/_data", engine->volumes_dir, name);
                if (!name_is_valid(name) || table_get(&engine->volumes, name) ||
                    access(data, F_OK) < 0)
                        continue;
                bool anonymous = strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
                struct volume *volume = make(engine, name, NULL, anonymous);
                struct err err = { 0 };
                if (record_new(engine, volume, &err) < 0)
                        log_warning("cannot record volume %s: %s", name, err_text(&err));
                log_info("the directory of volume %s had no record; it has one now", name);
        }
}

int volumes_load(struct engine *engine, struct err *err)
{
        struct store_value *values;
        size_t length;
        int r = store_list(engine->store, "volumes/", &values, &length, NULL, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < length; i++) {
                struct volume *volume = new0(struct volume);
                struct err why = { 0 };
                if (json_decode_text(&volume_shape, values[i].data, values[i].size, volume, &why) <
                            0 ||
                    !name_is_valid(volume->name)) {
                        log_error("the record '%s' is damaged and ignored: %s", values[i].key,
                                  err_text(&why));
                        json_free(&volume_shape, volume);
                        free(volume);
                        continue;
                }
                enlist(engine, volume);
        }
        store_values_free(values, length);
        adopt_strays(engine);
        return 0;
}

void volumes_destroy(struct engine *engine)
{
        const struct table_entry *entry;
        for (size_t cursor = 0; (entry = table_next(&engine->volumes, &cursor));)
                volume_free(entry->value);
        table_finish(&engine->volumes);
}
