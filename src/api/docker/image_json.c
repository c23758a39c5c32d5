#include "api/docker/image_json.h"

#include <stdlib.h>

#include "api/api.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/events.h"
#include "engine/instance.h"
#include "image/image.h"

void image_uses_collect(const struct api *api, struct image_uses *ret)
{
        size_t capacity = engine_counts(api->engine).total;
        *ret = (struct image_uses){ .items = xcalloc(capacity + 1, sizeof(*ret->items)) };
        for (struct instance *i = instance_first(api->engine); i && ret->length < capacity;
             i = instance_next(i)) {
                if (!i->image_id)
                        continue;
                ret->items[ret->length++] = (struct image_use){ .image_id = xstrdup(i->image_id),
                                                                .instance_id = xstrdup(i->id),
                                                                .running = i->pid > 0 };
        }
}

void image_uses_finish(struct image_uses *uses)
{
        for (size_t i = 0; i < uses->length; i++) {
                free((char *)uses->items[i].image_id);
                free((char *)uses->items[i].instance_id);
        }
        free(uses->items);
        *uses = (struct image_uses){ 0 };
}

struct json_object *image_summary(const struct image *image, int64_t containers,
                                  int64_t shared_bytes)
{
        struct json_object *o = json_object_new_object();
        put_int(o, "Containers", containers);
        put_int(o, "Created", image->created_ns / NS_PER_S);
        put_string(o, "Id", image->id.text);
        put_map(o, "Labels", image->spec.config.labels);
        put_string(o, "ParentId", "");
        put_strings(o, "RepoDigests", image->repo_digests);
        put_strings(o, "RepoTags", image->repo_tags);
        put_int(o, "SharedSize", shared_bytes);
        put_int(o, "Size", (int64_t)image->size_bytes);
        return o;
}

/* The image's own configuration, with the keys that tools look for even when unset. */
static struct json_object *config_json(const struct image *image)
{
        static const char *const nullable[] = { "Cmd",     "Entrypoint", "Env", "Labels",
                                                "OnBuild", "Volumes",    NULL };
        static const char *const texts[] = { "Domainname", "Hostname",   "Image",
                                             "User",       "WorkingDir", NULL };
        static const char *const flags[] = {
                "AttachStderr", "AttachStdin", "AttachStdout", "OpenStdin", "StdinOnce", "Tty", NULL
        };
        struct json_object *o = json_encode(&oci_execution_shape, &image->spec.config);
        for (const char *const *key = nullable; *key; key++)
                if (!json_object_object_get_ex(o, *key, NULL))
                        put_json(o, *key, NULL);
        for (const char *const *key = texts; *key; key++)
                if (!json_object_object_get_ex(o, *key, NULL))
                        put_string(o, *key, "");
        for (const char *const *key = flags; *key; key++)
                if (!json_object_object_get_ex(o, *key, NULL))
                        put_bool(o, *key, false);
        return o;
}

struct json_object *image_details(const struct image *image)
{
        struct json_object *o = json_object_new_object();
        put_string(o, "Id", image->id.text);
        put_strings(o, "RepoTags", image->repo_tags);
        put_strings(o, "RepoDigests", image->repo_digests);
        put_string(o, "Parent", "");
        put_string(o, "Comment", image->spec.comment);
        if (image->created_ns)
                put_time(o, "Created", image->created_ns);
        put_string(o, "DockerVersion", image->spec.docker_version);
        put_string(o, "Author", image->spec.author);
        put_json(o, "Config", config_json(image));
        put_string(o, "Architecture", image->architecture);
        if (!str_empty(image->variant))
                put_string(o, "Variant", image->variant);
        put_string(o, "Os", image->os);
        if (!str_empty(image->spec.os_version))
                put_string(o, "OsVersion", image->spec.os_version);
        put_int(o, "Size", (int64_t)image->size_bytes);
        struct json_object *driver = put_object(o, "GraphDriver");
        put_json(driver, "Data", NULL);
        put_string(driver, "Name", "overlay2");
        struct json_object *rootfs = put_object(o, "RootFS");
        put_string(rootfs, "Type", "layers");
        put_strings(rootfs, "Layers", image->spec.rootfs.diff_ids);
        put_time(put_object(o, "Metadata"), "LastTagTime", image->pulled_ns);
        return o;
}

struct json_object *image_removal_json(const struct image_removal *removal)
{
        struct json_object *list = json_object_new_array();
        for (size_t i = 0; i < removal->length; i++) {
                struct json_object *item = json_object_new_object();
                put_string(item, removal->items[i].untagged ? "Untagged" : "Deleted",
                           removal->items[i].name);
                push_json(list, item);
        }
        return list;
}

void image_event_emit(struct api *api, const char *action, const char *id, const char *name)
{
        auto_free char *attribute = xasprintf("name=%s", name ? name : "");
        char *attributes[] = { name ? attribute : NULL, NULL };
        engine_event_emit(api->engine, "image", action, id, attributes);
}

void image_removal_emit(struct api *api, const struct image_removal *removal)
{
        for (size_t i = 0; i < removal->length; i++)
                image_event_emit(api, removal->items[i].untagged ? "untag" : "delete",
                                 removal->items[i].name, removal->items[i].name);
}
