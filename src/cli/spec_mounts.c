#include <ctype.h>
#include <errno.h>
#include <json-c/json_object.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "cli/field.h"
#include "cli/path.h"
#include "cli/spec.h"
#include "codec/json.h"

int spec_volume(const char *text, char **ret_bind, struct err *err)
{
        const char *colon = strchr(text, ':');
        if (!*text)
                return err_plain(err, EINVAL, "invalid empty volume spec");
        if (colon == text || strstr(text, "::") || (colon && str_ends(text, ":")))
                return err_plain(err, EINVAL, "invalid spec: %s: empty section between colons",
                                 text);
        *ret_bind = NULL;
        if (!colon)
                return 0;
        auto_free char *source = xstrndup(text, (size_t)(colon - text));
        auto_free char *whole = source[0] == '.' ? path_absolute(source) : xstrdup(source);
        *ret_bind = xasprintf("%s%s", whole, colon);
        return 0;
}

/* --- --mount --- */

/* Cuts comma-separated fields; a field may be quoted, "" is a quote within. */
static int split_fields(const char *text, char ***ret, struct err *err)
{
        auto_strv fields = NULL;
        for (const char *at = text;; at++) {
                auto_buf field = { 0 };
                bool quoted = *at == '"';
                for (at += quoted; *at && (quoted || *at != ','); at++) {
                        if (quoted && *at == '"') {
                                if (at[1] != '"')
                                        break;
                                at++;
                        }
                        buf_putc(&field, *at);
                }
                if (quoted && *at++ != '"')
                        return err_plain(err, EINVAL, "unterminated quote in \"%s\"", text);
                if (*at && *at != ',')
                        return err_plain(err, EINVAL, "text behind a quote in \"%s\"", text);
                strv_push_take(&fields, buf_take(&field));
                if (!*at)
                        break;
        }
        *ret = take_ptr(fields);
        return 0;
}

enum mount_form { MOUNT_TEXT, MOUNT_TRUE, MOUNT_BYTES, MOUNT_MODE, MOUNT_PAIR, MOUNT_IGNORED };

static const struct {
        const char *key, *path;
        enum mount_form form;
        const char *type; /* only for this type; NULL: any */
} mount_keys[] = {
        { "type", "Type", MOUNT_TEXT, NULL },
        { "source", "Source", MOUNT_TEXT, NULL },
        { "src", "Source", MOUNT_TEXT, NULL },
        { "target", "Target", MOUNT_TEXT, NULL },
        { "dst", "Target", MOUNT_TEXT, NULL },
        { "destination", "Target", MOUNT_TEXT, NULL },
        { "readonly", "ReadOnly", MOUNT_TRUE, NULL },
        { "ro", "ReadOnly", MOUNT_TRUE, NULL },
        { "consistency", "Consistency", MOUNT_IGNORED, NULL },
        { "bind-propagation", "BindOptions.Propagation", MOUNT_TEXT, "bind" },
        { "bind-nonrecursive", "BindOptions.NonRecursive", MOUNT_TRUE, "bind" },
        { "bind-create-src", "BindOptions.CreateMountpoint", MOUNT_TRUE, "bind" },
        { "volume-subpath", "VolumeOptions.Subpath", MOUNT_TEXT, "volume" },
        { "volume-nocopy", "VolumeOptions.NoCopy", MOUNT_TRUE, "volume" },
        { "volume-driver", "VolumeOptions.DriverConfig.Name", MOUNT_TEXT, "volume" },
        { "volume-label", "VolumeOptions.Labels", MOUNT_PAIR, "volume" },
        { "volume-opt", "VolumeOptions.DriverConfig.Options", MOUNT_PAIR, "volume" },
        { "tmpfs-size", "TmpfsOptions.SizeBytes", MOUNT_BYTES, "tmpfs" },
        { "tmpfs-mode", "TmpfsOptions.Mode", MOUNT_MODE, "tmpfs" },
};

static int set_pair(struct json_object *mount, const char *path, const char *value)
{
        const char *equals = strchr(value, '=');
        struct json_object *map = field_get(mount, path);
        auto_free char *key = xstrndup(value, strcspn(value, "="));
        if (!map) {
                map = json_object_new_object();
                field_set(mount, path, map);
        }
        json_object_object_add(map, key, json_object_new_string(equals ? equals + 1 : ""));
        return 0;
}

static int set_mount_value(struct json_object *mount, size_t row, const char *key,
                           const char *value, struct err *err)
{
        const char *path = mount_keys[row].path;
        uint64_t bytes;
        char *end;
        bool no;
        switch (mount_keys[row].form) {
        case MOUNT_TEXT:
                field_set_text(mount, path, value);
                return 0;
        case MOUNT_TRUE:
                no = streq(value, "false") || streq(value, "0");
                if (*value && !no && !streq(value, "true") && !streq(value, "1"))
                        return err_plain(err, EINVAL, "invalid value for %s: %s", key, value);
                field_set(mount, path, json_object_new_boolean(!no));
                return 0;
        case MOUNT_BYTES:
                if (str_to_size(value, &bytes) < 0 || bytes > INT64_MAX)
                        return err_plain(err, EINVAL, "invalid value for %s: %s", key, value);
                field_set(mount, path, json_object_new_int64((int64_t)bytes));
                return 0;
        case MOUNT_MODE:
                bytes = strtoul(value, &end, 8);
                if (end == value || *end || bytes > 07777)
                        return err_plain(err, EINVAL, "invalid value for %s: %s", key, value);
                field_set(mount, path, json_object_new_int64((int64_t)bytes));
                return 0;
        case MOUNT_PAIR:
                return set_pair(mount, path, value);
        case MOUNT_IGNORED:
                return 0;
        }
        return 0;
}

/* `seen` collects the types that used keys belong to. */
static int set_mount_field(struct json_object *mount, const char *field, const char **seen,
                           struct err *err)
{
        size_t length = strcspn(field, "=");
        const char *value = field[length] ? field + length + 1 : "";
        auto_free char *key = xstrndup(field, length);
        for (char *c = key; *c; c++)
                *c = (char)tolower((unsigned char)*c);
        for (size_t i = 0; i < ELEMENTS(mount_keys); i++) {
                if (!streq(mount_keys[i].key, key))
                        continue;
                if (!field[length] && mount_keys[i].form != MOUNT_TRUE)
                        break;
                if (mount_keys[i].type)
                        *seen = mount_keys[i].type;
                return set_mount_value(mount, i, key, value, err);
        }
        if (!field[length])
                return err_plain(err, EINVAL, "invalid field '%s' must be a key=value pair", field);
        return err_plain(err, EINVAL, "unexpected key '%s' in '%s'", key, field);
}

int spec_mount(const char *text, struct json_object **ret, struct err *err)
{
        auto_json mount = json_object_new_object();
        auto_strv fields = NULL;
        const char *seen = NULL;
        int r = split_fields(text, &fields, err);
        field_set_text(mount, "Type", "volume");
        for (char **field = fields; r == 0 && *field; field++)
                r = set_mount_field(mount, *field, &seen, err);
        if (r < 0)
                return r;
        const char *type = field_text(mount, "Type"), *source = field_text(mount, "Source");
        if (!*type)
                return err_plain(err, EINVAL, "type is required");
        if (!*field_text(mount, "Target"))
                return err_plain(err, EINVAL, "target is required");
        if (seen && !streq(seen, type))
                return err_plain(err, EINVAL, "cannot mix '%s-*' options with mount type '%s'",
                                 seen, type);
        if (streq(type, "bind") && source[0] == '.') {
                auto_free char *whole = path_absolute(source);
                field_set_text(mount, "Source", whole);
        }
        *ret = take_ptr(mount);
        return 0;
}
