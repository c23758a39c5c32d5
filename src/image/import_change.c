#include "image/import_change.h"

#include <ctype.h>
#include <strings.h>

#include "base/buf.h"
#include "base/str.h"
#include "image/import_health.h"
#include "oci/image_spec.h"

#define CHANGE_LENGTH_MAX (64u << 10)

char **import_json_words(const char *text)
{
        auto_json object = NULL;
        char **words = NULL;
        if (*text != '[' || json_parse(text, strlen(text), &object, NULL) < 0 ||
            !json_object_is_type(object, json_type_array))
                return NULL;
        words = xcalloc(1, sizeof(*words)); /* [] is a value too */
        for (size_t i = 0; i < json_object_array_length(object); i++) {
                struct json_object *item = json_object_array_get_idx(object, i);
                if (!json_object_is_type(item, json_type_string)) {
                        strv_free(words);
                        return NULL;
                }
                strv_push(&words, json_object_get_string(item));
        }
        return words;
}

/* The next word: blanks separate, quotes group, a backslash escapes. NULL at the
 * end. */
static char *next_word(const char **text)
{
        const char *p = *text;
        auto_buf word = { 0 };
        char quote = '\0';
        p += strspn(p, " \t");
        if (!*p)
                return NULL;
        for (; *p && (quote || (*p != ' ' && *p != '\t')); p++) {
                if (*p == '\\' && p[1] && quote != '\'')
                        buf_putc(&word, *++p);
                else if (quote ? *p == quote : *p == '"' || *p == '\'')
                        quote = quote ? '\0' : *p;
                else
                        buf_putc(&word, *p);
        }
        *text = p;
        return buf_take(&word);
}

/* Sets "key=value" in a map, replacing what is there. */
static void map_set(char ***map, const char *pair)
{
        size_t key = strcspn(pair, "=") + 1;
        for (char **entry = *map; entry && *entry; entry++)
                if (strncmp(*entry, pair, key) == 0) {
                        free(*entry);
                        *entry = xstrdup(pair);
                        return;
                }
        strv_push(map, pair);
}

static void set_text(char **slot, const char *text)
{
        free(*slot);
        *slot = xstrdup(text);
}

static int bad(const char *name, const char *why, struct err *err)
{
        return err_plain(err, EINVAL, "invalid change: %s %s", name, why);
}

/* CMD and ENTRYPOINT: exec form as it is, shell form through /bin/sh. */
static int change_command(char ***slot, const char *text)
{
        char **words = import_json_words(text);
        if (!words) {
                strv_push(&words, "/bin/sh");
                strv_push(&words, "-c");
                strv_push(&words, text);
        }
        strv_free(*slot);
        *slot = words;
        return 0;
}

static int change_cmd(struct oci_execution *config, const char *text, struct err *err)
{
        (void)err;
        return change_command(&config->cmd, text);
}

static int change_entrypoint(struct oci_execution *config, const char *text, struct err *err)
{
        (void)err;
        return change_command(&config->entrypoint, text);
}

/* "a=b c=d", or the old form "a the rest". */
static int change_map(char ***map, const char *name, const char *text, struct err *err)
{
        size_t first = strcspn(text, "= \t");
        if (text[first] != '=') {
                const char *value = text + first + strspn(text + first, " \t");
                if (!*value)
                        return bad(name, "must have two arguments", err);
                auto_free char *pair = xasprintf("%.*s=%s", (int)first, text, value);
                map_set(map, pair);
                return 0;
        }
        char *word;
        while ((word = next_word(&text))) {
                auto_free char *pair = word;
                if (!strchr(pair, '=') || pair[0] == '=')
                        return bad(name, "needs name=value", err);
                map_set(map, pair);
        }
        return 0;
}

static int change_env(struct oci_execution *config, const char *text, struct err *err)
{
        return change_map(&config->env, "ENV", text, err);
}

static int change_label(struct oci_execution *config, const char *text, struct err *err)
{
        return change_map(&config->labels, "LABEL", text, err);
}

static int change_expose(struct oci_execution *config, const char *text, struct err *err)
{
        char *word;
        while ((word = next_word(&text))) {
                auto_free char *port = word;
                size_t digits = strspn(port, "0123456789-");
                const char *protocol = port[digits] == '/' ? port + digits + 1 : "tcp";
                bool known = streq(protocol, "tcp") || streq(protocol, "udp") ||
                             streq(protocol, "sctp");
                if (digits == 0 || (port[digits] && port[digits] != '/') || !known)
                        return err_plain(err, EINVAL, "invalid containerPort: %s", port);
                auto_free char *whole = xasprintf("%.*s/%s", (int)digits, port, protocol);
                if (!strv_contains(config->exposed_ports, whole))
                        strv_push(&config->exposed_ports, whole);
        }
        return 0;
}

static int change_volume(struct oci_execution *config, const char *text, struct err *err)
{
        auto_strv words = import_json_words(text);
        if (!words) {
                char *word;
                while ((word = next_word(&text)))
                        strv_push_take(&words, word);
        }
        for (char **path = words; path && *path; path++) {
                if (!**path)
                        return bad("VOLUME", "specified can not be an empty string", err);
                if (!strv_contains(config->volumes, *path))
                        strv_push(&config->volumes, *path);
        }
        return 0;
}

static int change_user(struct oci_execution *config, const char *text, struct err *err)
{
        (void)err;
        set_text(&config->user, text);
        return 0;
}

static int change_workdir(struct oci_execution *config, const char *text, struct err *err)
{
        (void)err;
        const char *base = str_empty(config->working_dir) ? "" : config->working_dir;
        auto_free char *path = *text == '/' ? xstrdup(text) : xasprintf("%s/%s", base, text);
        set_text(&config->working_dir, path);
        return 0;
}

static int change_stop_signal(struct oci_execution *config, const char *text, struct err *err)
{
        (void)err;
        set_text(&config->stop_signal, text);
        return 0;
}

static int change_health(struct oci_execution *config, const char *text, struct err *err)
{
        struct oci_healthcheck *health = NULL;
        int r = import_health(text, &health, err);
        if (r < 0)
                return r;
        import_health_free(config->healthcheck);
        config->healthcheck = health;
        return 0;
}

/* What a trigger says; one that would set one, or start anew, is none. */
static int change_on_build(struct oci_execution *config, const char *text, struct err *err)
{
        static const char *const refused[] = { "ONBUILD", "FROM", "MAINTAINER" };
        size_t length = strcspn(text, " \t");
        for (size_t i = 0; i < ELEMENTS(refused); i++)
                if (strlen(refused[i]) == length && strncasecmp(refused[i], text, length) == 0)
                        return err_plain(err, EINVAL, "%s isn't allowed as an ONBUILD trigger",
                                         refused[i]);
        strv_push(&config->on_build, text);
        return 0;
}

static const struct {
        const char *name;
        int (*apply)(struct oci_execution *config, const char *text, struct err *err);
} changes[] = {
        { "CMD", change_cmd },
        { "ENTRYPOINT", change_entrypoint },
        { "ENV", change_env },
        { "EXPOSE", change_expose },
        { "HEALTHCHECK", change_health },
        { "LABEL", change_label },
        { "ONBUILD", change_on_build },
        { "STOPSIGNAL", change_stop_signal },
        { "USER", change_user },
        { "VOLUME", change_volume },
        { "WORKDIR", change_workdir },
};

int import_change(struct oci_execution *config, const char *change, struct err *err)
{
        if (strlen(change) > CHANGE_LENGTH_MAX)
                return err_plain(err, EFBIG, "a change of %zu bytes", strlen(change));
        change += strspn(change, " \t");
        size_t length = strcspn(change, " \t=");
        const char *text = change + length;
        text += strspn(text, " \t");
        /* docker takes "CMD=x" for ENV's sake alone; we do not. */
        for (size_t i = 0; i < ELEMENTS(changes); i++) {
                if (strlen(changes[i].name) != length ||
                    strncasecmp(changes[i].name, change, length) != 0)
                        continue;
                if (!*text)
                        return bad(changes[i].name, "requires at least one argument", err);
                return changes[i].apply(config, text, err);
        }
        return err_plain(err, EINVAL, "%.*s is not a valid change command", (int)length, change);
}
