#include "cli/detach.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"

static int parse_key(const char *word)
{
        const char *control = str_after(word, "ctrl-");
        if (strlen(word) == 1)
                return (unsigned char)word[0];
        if (!control || strlen(control) != 1)
                return -EINVAL;
        char c = control[0];
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 1;
        if (c == '@' || (c >= '[' && c <= '_'))
                return c - '@';
        return -EINVAL;
}

int detach_parse(const char *text, struct detach *ret, struct err *err)
{
        struct detach detach = { 0 };
        if (str_empty(text))
                text = DETACH_KEYS_DEFAULT;
        auto_strv words = str_split(text, ',');
        for (char **word = words; *word; word++) {
                int key = parse_key(*word);
                if (key < 0)
                        return err_plain(err, EINVAL,
                                         "invalid detach keys (%s): Unknown character: '%s'", text,
                                         *word);
                if (detach.length == DETACH_KEYS_MAX)
                        return err_plain(err, EINVAL, "invalid detach keys (%s): too many", text);
                detach.keys[detach.length++] = (unsigned char)key;
        }
        *ret = detach;
        return 0;
}

bool detach_filter(struct detach *detach, const void *data, size_t size, struct buf *out)
{
        const unsigned char *bytes = data;
        for (size_t i = 0; i < size; i++) {
                if (detach->length && bytes[i] != detach->keys[detach->matched]) {
                        buf_append(out, detach->keys, detach->matched);
                        detach->matched = 0;
                }
                if (!detach->length || bytes[i] != detach->keys[detach->matched])
                        buf_putc(out, (char)bytes[i]);
                else if (++detach->matched == detach->length)
                        return true;
        }
        return false;
}
