/* Records, their directories and their locks; the filter cache. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "runtime/filter_cache.h"
#include "runtime/state.h"

static const char config[] =
        "{\"ociVersion\":\"1.2.0\",\"root\":{\"path\":\"rootfs\"},"
        "\"process\":{\"cwd\":\"/\",\"args\":[\"true\"],\"user\":{\"uid\":0,\"gid\":0}},"
        "\"linux\":{}}";

static int setup(void **state)
{
        char *root = strdup("/tmp/isle-state-XXXXXX");
        *state = mkdtemp(root);
        return *state ? 0 : -1;
}

static int teardown(void **state)
{
        int r = file_remove_tree(AT_FDCWD, *state, NULL);
        free(*state);
        return r;
}

static void ids_are_names_of_directories(void **state)
{
        (void)state;
        static const char *const good[] = { "a", "A-b_c+1.2", "..." };
        static const char *const bad[] = { "", ".", "..", "a/b", "a b", "\xc3\xa9", "a\n" };
        for (size_t i = 0; i < ELEMENTS(good); i++)
                assert_int_equal(state_check_id(good[i], NULL), 0);
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(state_check_id(bad[i], NULL), -EINVAL);
        char long_id[300];
        memset(long_id, 'x', sizeof(long_id) - 1);
        long_id[sizeof(long_id) - 1] = '\0';
        assert_int_equal(state_check_id(long_id, NULL), -EINVAL);
}

static void an_id_has_one_winner(void **state)
{
        const char *root = *state;
        struct state first, second;
        struct err err;
        static const struct record record = { .id = (char *)"box",
                                              .oci_version = (char *)"1.2.0",
                                              .bundle = (char *)"/bundle" };
        assert_int_equal(state_make(root, "box", &first, &err), 0);
        assert_int_equal(state_write(&first, &record, config, &err), 0);
        assert_int_equal(state_make(root, "box", &second, &err), -EEXIST);
        assert_non_null(strstr(err_text(&err), "already exists"));
        assert_int_equal(state_remove(&first, &err), 0);
        state_close(&first);
        assert_int_equal(state_open(root, "box", false, &second, &err), -ENOENT);
}

/* What is left when a create is killed before its record, or a delete after it. */
static void a_directory_without_a_record_is_taken_over(void **state)
{
        const char *root = *state;
        struct state box;
        struct err err;
        auto_free char *path = xasprintf("%s/box", root);
        auto_free char *inside = xasprintf("%s/vm", path);
        assert_int_equal(mkdir(path, 0711), 0);
        assert_int_equal(mkdir(inside, 0700), 0);
        assert_int_equal(state_make(root, "box", &box, &err), 0);
        assert_int_equal(access(inside, F_OK), -1);
        assert_int_equal(state_remove(&box, &err), 0);
        state_close(&box);
}

static void a_record_comes_back_as_written(void **state)
{
        const char *root = *state;
        auto_state box = { .fd = -1 };
        struct err err;
        assert_int_equal(state_make(root, "box", &box, &err), 0);
        auto_record nothing = { 0 };
        assert_int_equal(state_read(&box, true, &nothing, &err), -ENOENT);
        char *groups[] = { (char *)"memory=/sys/fs/cgroup/memory/x", NULL };
        char *notes[] = { (char *)"a=b", NULL };
        struct record record = {
                .id = (char *)"box",
                .oci_version = (char *)"1.2.0",
                .bundle = (char *)"/bundle",
                .rootfs = (char *)"/bundle/rootfs",
                .pid = 42,
                .start_time = 7,
                .owner = 1000,
                .cgroups = groups,
                .annotations = notes,
                .creating = true,
        };
        assert_int_equal(state_write(&box, &record, config, &err), 0);
        auto_record read = { 0 };
        assert_int_equal(state_read(&box, true, &read, &err), 0);
        assert_string_equal(read.bundle, "/bundle");
        assert_true(read.creating);
        assert_int_equal(read.pid, 42);
        assert_int_equal(read.owner, 1000);
        assert_string_equal(read.cgroups[0], groups[0]);
        assert_string_equal(read.annotations[0], notes[0]);
        assert_string_equal(read.config->process->args[0], "true");
        assert_int_equal(state_remove(&box, &err), 0);
}

static void lists_show_containers_only(void **state)
{
        const char *root = *state;
        auto_strv ids = NULL;
        auto_free char *none = xasprintf("%s/none", root);
        assert_int_equal(state_list(none, &ids, NULL), 0);
        assert_int_equal(strv_length(ids), 0);
        static const char *const names[] = { "b", "a" };
        for (size_t i = 0; i < ELEMENTS(names); i++) {
                auto_state made = { .fd = -1 };
                assert_int_equal(state_make(root, names[i], &made, NULL), 0);
        }
        auto_free char *hidden = xasprintf("%s/.seccomp", root);
        auto_free char *file = xasprintf("%s/file", root);
        assert_int_equal(mkdir(hidden, 0700), 0);
        auto_fd fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(state_list(root, &ids, NULL), 0);
        assert_int_equal(strv_length(ids), 2);
        assert_string_equal(ids[0], "a");
        assert_string_equal(ids[1], "b");
}

static void a_damaged_record_is_refused(void **state)
{
        (void)state;
        static const char *const bad[] = {
                "", "{", "[]", "{\"id\":1}", "{\"id\":\"x\"}", "{\"id\":\"x\",\"ociVersion\":\"1\"}"
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct record record;
                struct err err = { 0 };
                assert_true(record_parse(bad[i], strlen(bad[i]), false, &record, &err) < 0);
                assert_true(*err_text(&err));
        }
}

/* -- the filter cache ---------------------------------------------------------- */

static void key_of(const char *call, uint32_t errno_value, struct buf *key)
{
        char *names[] = { (char *)call, NULL };
        struct seccomp_condition condition = { 0, SECCOMP_COMPARE_EQ, 5, 0 };
        struct seccomp_rule rule = { .names = names,
                                     .action = SECCOMP_ACTION_ERRNO,
                                     .errno_value = errno_value,
                                     .conditions = &condition,
                                     .conditions_length = 1 };
        struct seccomp_profile profile = { .default_action = SECCOMP_ACTION_ALLOW,
                                           .rules = &rule,
                                           .rules_length = 1 };
        filter_cache_key(&profile, key);
}

static void a_filter_is_found_by_its_whole_profile(void **state)
{
        const char *root = *state;
        struct sock_filter code[] = { { .code = 6, .k = 0x7fff0000 }, { .code = 6, .k = 0 } };
        struct seccomp_program program = { code, ELEMENTS(code), true }, found;
        auto_buf key = { 0 }, other = { 0 }, other_errno = { 0 };
        key_of("write", 1, &key);
        key_of("read", 1, &other);
        key_of("write", 2, &other_errno);
        assert_int_equal(filter_cache_load(root, &key, &found), -ENOENT);
        filter_cache_store(root, &key, &program);
        assert_int_equal(filter_cache_load(root, &key, &found), 0);
        assert_int_equal(found.length, 2);
        assert_true(found.notifies);
        assert_memory_equal(found.code, code, sizeof(code));
        seccomp_program_finish(&found);
        assert_int_equal(filter_cache_load(root, &other, &found), -ENOENT);
        assert_int_equal(filter_cache_load(root, &other_errno, &found), -ENOENT);
}

/* The one file of the cache below `root`. */
static char *cache_file(const char *root)
{
        for (unsigned slot = 0; slot < FILTER_CACHE_SLOTS; slot++) {
                char *path = xasprintf("%s/.seccomp/%02x", root, slot);
                if (access(path, F_OK) == 0)
                        return path;
                free(path);
        }
        return NULL;
}

static void a_foreign_or_damaged_file_is_no_filter(void **state)
{
        const char *root = *state;
        struct sock_filter code[] = { { .code = 6, .k = 0x7fff0000 } };
        struct seccomp_program program = { code, ELEMENTS(code), false }, found;
        auto_buf key = { 0 };
        key_of("write", 1, &key);
        filter_cache_store(root, &key, &program);
        auto_free char *path = cache_file(root);
        assert_non_null(path);

        assert_int_equal(chmod(path, 0666), 0); /* anybody may have written it */
        assert_int_equal(filter_cache_load(root, &key, &found), -ENOENT);
        assert_int_equal(chmod(path, 0600), 0);
        assert_int_equal(filter_cache_load(root, &key, &found), 0);
        seccomp_program_finish(&found);

        auto_free char *text = NULL;
        size_t size;
        assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &text, &size, NULL), 0);
        assert_int_equal(filter_cache_parse(text, size - 1, &key, &found), -EBADMSG);
        text[0] ^= 1;
        assert_int_equal(filter_cache_parse(text, size, &key, &found), -EBADMSG);
        text[0] ^= 1;
        text[sizeof(struct filter_cache_header)] ^= 1; /* the key */
        assert_int_equal(filter_cache_parse(text, size, &key, &found), -ENOENT);
        assert_int_equal(filter_cache_parse(text, 3, &key, &found), -EBADMSG);

        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/etc/passwd", path), 0);
        assert_int_equal(filter_cache_load(root, &key, &found), -ENOENT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(ids_are_names_of_directories),
                cmocka_unit_test_setup_teardown(an_id_has_one_winner, setup, teardown),
                cmocka_unit_test_setup_teardown(a_directory_without_a_record_is_taken_over, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_record_comes_back_as_written, setup, teardown),
                cmocka_unit_test_setup_teardown(lists_show_containers_only, setup, teardown),
                cmocka_unit_test(a_damaged_record_is_refused),
                cmocka_unit_test_setup_teardown(a_filter_is_found_by_its_whole_profile, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_foreign_or_damaged_file_is_no_filter, setup,
                                                teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
