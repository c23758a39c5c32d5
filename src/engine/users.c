#include "engine/users.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/resolve.h"

#define FIELDS_MAX 7

struct line {
        char *fields[FIELDS_MAX]; /* NULL beyond `length` */
        size_t length;
};

/* Takes the next line off *text, splits it in place of `scratch`. False at the end. */
static bool next_line(const char **text, char **scratch, struct line *ret)
{
        free(*scratch);
        *scratch = NULL;
        if (!**text)
                return false;
        const char *end = strchrnul(*text, '\n');
        *scratch = xstrndup(*text, (size_t)(end - *text));
        *text = *end ? end + 1 : end;
        *ret = (struct line){ 0 };
        char *at = *scratch;
        while (at && ret->length < FIELDS_MAX) {
                ret->fields[ret->length++] = at;
                at = strchr(at, ':');
                if (at)
                        *at++ = '\0';
        }
        return true;
}

static bool line_id(const struct line *line, size_t field, uint32_t *ret)
{
        return line->length > field && str_to_u32(line->fields[field], ret) == 0;
}

struct passwd_entry {
        char *name, *home;
        uint32_t uid, gid;
        bool found;
};

/* First entry with this name or, where `by_uid`, this number. */
static void find_user(const char *passwd, const char *name, bool by_uid, uint32_t uid,
                      struct passwd_entry *ret)
{
        auto_free char *scratch = NULL;
        struct line line;
        while (next_line(&passwd, &scratch, &line)) {
                struct passwd_entry entry = { .found = true };
                if (!line_id(&line, 2, &entry.uid) || !line_id(&line, 3, &entry.gid) ||
                    !*line.fields[0])
                        continue;
                if (by_uid ? entry.uid != uid : !streq(line.fields[0], name))
                        continue;
                entry.name = xstrdup(line.fields[0]);
                entry.home = xstrdup(line.length > 5 ? line.fields[5] : "");
                *ret = entry;
                return;
        }
}

static bool find_group(const char *group, const char *name, uint32_t *ret_gid)
{
        auto_free char *scratch = NULL;
        struct line line;
        while (next_line(&group, &scratch, &line))
                if (streq(line.fields[0], name) && line_id(&line, 2, ret_gid))
                        return true;
        return false;
}

static void add_group(struct user_found *user, uint32_t gid)
{
        for (size_t i = 0; i < user->groups_length; i++)
                if (user->groups[i] == gid)
                        return;
        if (user->groups_length >= USERS_GROUPS_MAX)
                return;
        user->groups = xrealloc(user->groups, user->groups_length + 1, sizeof(uint32_t));
        user->groups[user->groups_length++] = gid;
}

/* The groups that list the user as a member. */
static void add_memberships(struct user_found *user, const char *group, const char *name)
{
        auto_free char *scratch = NULL;
        struct line line;
        while (next_line(&group, &scratch, &line)) {
                uint32_t gid;
                if (line.length < 4 || !line_id(&line, 2, &gid))
                        continue;
                auto_strv members = str_split(line.fields[3], ',');
                if (strv_contains(members, name))
                        add_group(user, gid);
        }
}

static int resolve_group(const char *text, const char *group, uint32_t *ret, struct err *err)
{
        if (find_group(group, text, ret) || str_to_u32(text, ret) == 0)
                return 0;
        return err_plain(err, EINVAL, "unable to find group %s: no matching entries in group file",
                         text);
}

static int resolve_parts(const char *name, const char *group_name, const char *passwd,
                         const char *group, char *const *group_add, struct user_found *user,
                         struct err *err)
{
        struct passwd_entry entry = { 0 };
        uint32_t number = 0;
        bool numeric = str_to_u32(name, &number) == 0;
        if (!numeric || str_empty(name))
                find_user(passwd, str_empty(name) ? "root" : name, false, 0, &entry);
        if (!entry.found && (numeric || str_empty(name)))
                find_user(passwd, NULL, true, number, &entry);
        auto_free char *entry_name = entry.name;
        user->home = entry.home && *entry.home == '/' ? xstrdup(entry.home) : xstrdup("/");
        free(entry.home);

        if (!entry.found && !numeric && !str_empty(name))
                return err_plain(err, EINVAL,
                                 "unable to find user %s: no matching entries in passwd file",
                                 name);
        user->uid = entry.found ? entry.uid : number;
        user->gid = entry.found ? entry.gid : 0;
        if (group_name) {
                int r = resolve_group(group_name, group, &user->gid, err);
                if (r < 0)
                        return r;
        } else if (entry_name) {
                add_memberships(user, group, entry_name);
        }
        for (; group_add && *group_add; group_add++) {
                uint32_t gid;
                int r = resolve_group(*group_add, group, &gid, err);
                if (r < 0)
                        return r;
                add_group(user, gid);
        }
        return 0;
}

int user_resolve(const char *spec, const char *passwd, const char *group, char *const *group_add,
                 struct user_found *ret, struct err *err)
{
        const char *colon = spec ? strchr(spec, ':') : NULL;
        auto_free char *name = colon ? xstrndup(spec, (size_t)(colon - spec))
                                     : xstrdup(spec ? spec : "");
        struct user_found user = { 0 };
        int r = resolve_parts(name, colon && colon[1] ? colon + 1 : NULL, passwd, group, group_add,
                              &user, err);
        if (r < 0) {
                user_found_finish(&user);
                return r;
        }
        *ret = user;
        return 0;
}

void user_found_finish(struct user_found *user)
{
        free(user->groups);
        free(user->home);
        *user = (struct user_found){ 0 };
}

/* The text of a file of the root; "" where there is none. */
static int read_database(int root_fd, const char *path, char **ret, struct err *err)
{
        auto_fd fd = -1;
        /* O_NONBLOCK: it might be a FIFO. */
        int r = resolve_open(root_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, &fd,
                             err);
        if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP) {
                err_clear(err);
                *ret = xstrdup("");
                return 0;
        }
        if (r < 0)
                return r;
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "stat %s of the instance", path);
        if (!S_ISREG(st.st_mode))
                return err_plain(err, EINVAL, "%s of the instance is not a regular file", path);
        return file_read_fd(fd, USERS_FILE_MAX, ret, NULL, err);
}

int user_lookup(int root_fd, const char *spec, char *const *group_add, struct user_found *ret,
                struct err *err)
{
        auto_free char *passwd = NULL, *group = NULL;
        int r = read_database(root_fd, "/etc/passwd", &passwd, err);
        if (r == 0)
                r = read_database(root_fd, "/etc/group", &group, err);
        if (r < 0)
                return r;
        return user_resolve(spec, passwd, group, group_add, ret, err);
}
