#include "image/import_health.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/duration.h"
#include "base/str.h"
#include "image/import_change.h"
#include "oci/image_spec.h"

static const struct {
        const char *name;
        size_t offset; /* of the nanoseconds */
} times[] = {
        { "interval", offsetof(struct oci_healthcheck, interval_ns) },
        { "timeout", offsetof(struct oci_healthcheck, timeout_ns) },
        { "start-period", offsetof(struct oci_healthcheck, start_period_ns) },
        { "start-interval", offsetof(struct oci_healthcheck, start_interval_ns) },
};

void import_health_free(struct oci_healthcheck *health)
{
        if (!health)
                return;
        json_free(&oci_healthcheck_shape, health);
        free(health);
}

static int take_time(const char *name, const char *value, int64_t *ret_ns, struct err *err)
{
        int64_t ns;
        struct err why = { 0 };
        if (duration_parse(value, &ns, &why) < 0)
                return err_plain(err, EINVAL, "HEALTHCHECK --%s: %s", name, err_text(&why));
        if (ns && ns < NS_PER_MS)
                return err_plain(err, EINVAL, "HEALTHCHECK --%s=%s cannot be less than 1ms", name,
                                 value);
        *ret_ns = ns;
        return 0;
}

/* "--name=value" */
static int take_flag(struct oci_healthcheck *health, const char *flag, struct err *err)
{
        size_t length = strcspn(flag, "=");
        const char *value = flag[length] ? flag + length + 1 : "";
        auto_free char *name = xstrndup(flag, length);
        if (!*value)
                return err_plain(err, EINVAL, "HEALTHCHECK: missing a value on flag: %s", name);
        for (size_t i = 0; i < ELEMENTS(times); i++)
                if (streq(name + 2, times[i].name))
                        return take_time(times[i].name, value,
                                         (int64_t *)(void *)((char *)health + times[i].offset),
                                         err);
        uint32_t retries;
        if (!streq(name, "--retries"))
                return err_plain(err, EINVAL, "HEALTHCHECK: unknown flag: %s", name);
        if (str_to_u32(value, &retries) < 0 || retries > INT32_MAX)
                return err_plain(err, EINVAL, "HEALTHCHECK --retries=%s is not a number from 0 on",
                                 value);
        health->retries = retries;
        return 0;
}

static bool is_word(const char *text, size_t length, const char *word)
{
        return strlen(word) == length && strncasecmp(text, word, length) == 0;
}

static int take_test(struct oci_healthcheck *health, const char *text, struct err *err)
{
        size_t length = strcspn(text, " \t");
        const char *command = text + length + strspn(text + length, " \t");
        if (is_word(text, length, "NONE")) {
                if (*command)
                        return err_plain(err, EINVAL, "HEALTHCHECK NONE takes no arguments");
                strv_push(&health->test, "NONE");
                return 0;
        }
        if (!is_word(text, length, "CMD"))
                return err_plain(err, EINVAL, "Unknown type \"%.*s\" in HEALTHCHECK (try CMD)",
                                 (int)length, text);
        auto_strv words = import_json_words(command);
        if (words ? !*words : !*command)
                return err_plain(err, EINVAL, "Missing command after HEALTHCHECK CMD");
        strv_push(&health->test, words ? "CMD" : "CMD-SHELL");
        for (char **word = words; word && *word; word++)
                strv_push(&health->test, *word);
        if (!words)
                strv_push(&health->test, command);
        return 0;
}

int import_health(const char *text, struct oci_healthcheck **ret, struct err *err)
{
        struct oci_healthcheck *health = new0(struct oci_healthcheck);
        int r = 0;
        while (r == 0 && str_starts(text, "--")) {
                size_t length = strcspn(text, " \t");
                auto_free char *flag = xstrndup(text, length);
                text += length + strspn(text + length, " \t");
                r = take_flag(health, flag, err);
        }
        if (r == 0)
                r = take_test(health, text, err);
        if (r < 0)
                import_health_free(health);
        else
                *ret = health;
        return r;
}
