#include "engine/record.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "codec/json.h"
#include "engine/core.h"
#include "engine/names.h"

struct record {
        int version;
        char *id, *name, *image_id;
        struct instance_spec spec;
        char **argv;
        struct instance_mount *mounts;
        size_t mounts_length;
        int state;
        int exit_code;
        char *error;
        bool oom_killed, stopped_by_user;
        uint32_t restart_count;
        int64_t created_ns, started_ns, finished_ns;
};

static const char *const state_names[] = { "created",  "running", "paused", "restarting",
                                           "removing", "exited",  "dead",   NULL };

#define T struct instance_mount
static const struct json_field mount_fields[] = {
        JSON_FIELD(T, "Type", JSON_STRING, type, JSON_REQUIRED),
        JSON_FIELD(T, "Name", JSON_STRING, name, 0),
        JSON_FIELD(T, "Source", JSON_STRING, source, 0),
        JSON_FIELD(T, "Destination", JSON_STRING, destination, JSON_REQUIRED),
        JSON_FIELD(T, "Driver", JSON_STRING, driver, 0),
        JSON_FIELD(T, "Mode", JSON_STRING, mode, 0),
        JSON_FIELD(T, "RW", JSON_BOOL, read_write, 0),
        JSON_FIELD(T, "Propagation", JSON_STRING, propagation, 0),
        JSON_FIELD(T, "Options", JSON_STRING, options, 0),
        JSON_FIELD(T, "CopyUp", JSON_BOOL, copy_up, 0),
        JSON_FIELD(T, "NonRecursive", JSON_BOOL, non_recursive, 0),
};
static const struct json_shape mount_shape = JSON_SHAPE("mounts", T, mount_fields);
#undef T

#define T struct record
static const struct json_field record_fields[] = {
        JSON_FIELD(T, "version", JSON_INT, version, JSON_REQUIRED),
        JSON_FIELD(T, "id", JSON_STRING, id, JSON_REQUIRED),
        JSON_FIELD(T, "name", JSON_STRING, name, JSON_REQUIRED),
        JSON_FIELD(T, "image", JSON_STRING, image_id, JSON_REQUIRED),
        JSON_FIELD_STRUCT(T, "spec", spec, &instance_spec_shape, JSON_REQUIRED),
        JSON_FIELD(T, "argv", JSON_STRV, argv, 0),
        JSON_FIELD_ARRAY(T, "mounts", mounts, mounts_length, &mount_shape, 0),
        JSON_FIELD_ENUM(T, "state", state, state_names, JSON_REQUIRED),
        JSON_FIELD(T, "exit_code", JSON_INT, exit_code, 0),
        JSON_FIELD(T, "error", JSON_STRING, error, 0),
        JSON_FIELD(T, "oom_killed", JSON_BOOL, oom_killed, 0),
        JSON_FIELD(T, "stopped_by_user", JSON_BOOL, stopped_by_user, 0),
        JSON_FIELD(T, "restart_count", JSON_UINT, restart_count, 0),
        JSON_FIELD(T, "created_ns", JSON_INT, created_ns, 0),
        JSON_FIELD(T, "started_ns", JSON_INT, started_ns, 0),
        JSON_FIELD(T, "finished_ns", JSON_INT, finished_ns, 0),
};
static const struct json_shape record_shape = JSON_SHAPE("record", T, record_fields);
#undef T

/* The same members by the same pointers: neither side owns more than the other. */
static struct record record_of(const struct instance *instance)
{
        return (struct record){
                .version = RECORD_VERSION,
                .id = (char *)instance->id,
                .name = instance->name,
                .image_id = instance->image_id,
                .spec = instance->spec,
                .argv = instance->argv,
                .mounts = instance->mounts,
                .mounts_length = instance->mounts_length,
                .state = (int)instance->state,
                .exit_code = instance->exit_code,
                .error = instance->error,
                .oom_killed = instance->oom_killed,
                .stopped_by_user = instance->stopped_by_user,
                .restart_count = instance->restart_count,
                .created_ns = instance->created_ns,
                .started_ns = instance->started_ns,
                .finished_ns = instance->finished_ns,
        };
}

char *instance_record_encode(const struct instance *instance)
{
        struct record record = record_of(instance);
        return json_encode_text(&record_shape, &record, false);
}

static int check(const struct record *record, struct err *err)
{
        if (record->version != RECORD_VERSION)
                return err_plain(err, EBADMSG, "record of version %d, this program knows %d",
                                 record->version, RECORD_VERSION);
        if (strlen(record->id) != INSTANCE_ID_SIZE - 1 ||
            strspn(record->id, "0123456789abcdef") != INSTANCE_ID_SIZE - 1)
                return err_plain(err, EBADMSG, "record with a bad id");
        if (!name_is_valid(record->name))
                return err_plain(err, EBADMSG, "record with a bad name");
        for (size_t i = 0; i < record->mounts_length; i++)
                if (record->mounts[i].destination[0] != '/')
                        return err_plain(err, EBADMSG, "record with a bad mount point");
        return 0;
}

int instance_record_decode(const char *text, size_t size, struct instance *ret, struct err *err)
{
        struct record record = { 0 };
        int r = json_decode_text(&record_shape, text, size, &record, err);
        if (r < 0)
                return r;
        r = check(&record, err);
        if (r < 0) {
                json_free(&record_shape, &record);
                return r;
        }
        memcpy(ret->id, record.id, INSTANCE_ID_SIZE);
        free(record.id);
        ret->name = record.name;
        ret->image_id = record.image_id;
        ret->spec = record.spec;
        ret->argv = record.argv;
        ret->mounts = record.mounts;
        ret->mounts_length = record.mounts_length;
        ret->state = (enum instance_state)record.state;
        ret->exit_code = record.exit_code;
        ret->error = record.error;
        ret->oom_killed = record.oom_killed;
        ret->stopped_by_user = record.stopped_by_user;
        ret->restart_count = record.restart_count;
        ret->created_ns = record.created_ns;
        ret->started_ns = record.started_ns;
        ret->finished_ns = record.finished_ns;
        return 0;
}

void instance_record_finish(struct instance *instance)
{
        struct record record = record_of(instance);
        record.id = NULL;
        json_free(&record_shape, &record);
        instance->name = instance->image_id = instance->error = NULL;
        instance->argv = NULL;
        instance->mounts = NULL;
        instance->mounts_length = 0;
        instance->spec = (struct instance_spec){ 0 };
}

/* -- saving -------------------------------------------------------------------- */

void instance_save(struct instance *instance)
{
        instance->private->dirty = false;
        if (!instance->private->listed)
                return;
        auto_free char *text = instance_record_encode(instance);
        auto_free char *key = xasprintf("instances/%s", instance->id);
        struct err err = { 0 };
        if (store_put(instance_engine(instance)->store, key, text, strlen(text), &err) < 0)
                log_error("cannot save the record of %s: %s", instance->name, err_text(&err));
}

static void save_deferred(void *arg)
{
        struct instance *instance = arg;
        if (instance->private->dirty)
                instance_save(instance);
        instance_unref(instance);
}

void instance_save_soon(struct instance *instance)
{
        if (instance->private->dirty)
                return;
        instance->private->dirty = true;
        if (loop_defer(instance_engine(instance)->loop, save_deferred, instance_ref(instance)) <
            0) {
                instance_save(instance);
                instance_unref(instance);
        }
}
