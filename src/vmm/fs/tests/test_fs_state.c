/* What a guest holds of a shared directory, in a snapshot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

#include "vmm/fs/tests/export.h"
#include "vmm/snapshot/state.h"

static struct state_writer saved;

static void save(void)
{
        struct err err = { 0 };
        state_writer_finish(&saved);
        saved = (struct state_writer){ .now_ns = 1 };
        if (fs_server_save(guest.server, &saved, &err) < 0)
                fail_msg("%s", err_text(&err));
}

static int load_bytes(const void *bytes, size_t size, struct err *err)
{
        struct state_section s = { .file = "dir/state",
                                   .name = "virtio-fs.0",
                                   .version = 1,
                                   .data = bytes,
                                   .size = size };
        int r = fs_server_load(guest.server, &s, err);
        return r < 0 ? r : state_end(&s, err);
}

/* Another server, which has everything from the snapshot; guest_init() would reset it. */
static void serve_anew(struct fs_options o)
{
        struct err err = { 0 };
        fs_server_destroy(guest.server);
        guest.server = NULL;
        o.root = top;
        assert_int_equal(fs_server_create(&o, &guest.server, &err), 0);
}

static void go_on(void)
{
        struct err err = { 0 };
        serve_anew((struct fs_options){ 0 });
        if (load_bytes(saved.buf.data, saved.buf.size, &err) < 0)
                fail_msg("%s", err_text(&err));
}

static void says(const struct err *err, const char *what)
{
        if (!strstr(err_text(err), what))
                fail_msg("\"%s\" does not say \"%s\"", err_text(err), what);
}

static void load_is_refused(struct fs_options o, const char *why)
{
        struct err err = { 0 };
        serve_anew(o);
        assert_true(load_bytes(saved.buf.data, saved.buf.size, &err) < 0);
        says(&err, why);
}

static void save_is_refused(const char *why)
{
        struct err err = { 0 };
        struct state_writer w = { .now_ns = 1 };
        assert_int_equal(fs_server_save(guest.server, &w, &err), -EBUSY);
        state_writer_finish(&w);
        says(&err, why);
}

static void numbers_mean_the_same_in_another_server(void **state)
{
        (void)state;
        assert_int_equal(mkdirat(root_fd, "d", 0755), 0);
        put("d/file", "hello");
        put("gone", "");
        uint64_t d = node_of(ROOT, "d"), gone = node_of(ROOT, "gone"), file = node_of(d, "file");
        uint64_t reads = opened(file, O_RDONLY), writes = opened(file, O_WRONLY), lists = 0;
        assert_int_equal(guest_open(g, FUSE_OPENDIR, d, 0, &lists), 0);
        const struct fuse_forget_in forget = { 1 };
        guest_send(g, FUSE_FORGET, gone, &forget, sizeof(forget), NULL, 0);
        save();
        go_on();
        assert_int_equal(guest_read(g, FUSE_READ, file, reads, 0, 100), 0);
        assert_memory_equal(g->answer, "hello", 5);
        assert_int_equal(guest_write(g, file, writes, 5, " again", 0), 0);
        holds("d/file", "hello again");
        assert_int_equal(guest_write(g, file, reads, 0, "x", 0), -EBADF);
        assert_int_equal(guest_read(g, FUSE_READDIR, d, lists, 0, 4096), 0);
        assert_true(g->size > 0);
        assert_int_equal(node_of(d, "file"), file);
        assert_int_equal(guest_read(g, FUSE_READ, file, lists, 0, 100), -EBADF); /* a directory */
        uint64_t new = node_of(ROOT, "gone");
        assert_true(new != d &&new != file &&new != gone);
        for (unsigned i = 0; i < 2; i++) /* its lookups were saved, too */
                guest_send(g, FUSE_FORGET, file, &forget, sizeof(forget), NULL, 0);
        guest_release(g, FUSE_RELEASE, file, reads);
        guest_release(g, FUSE_RELEASE, file, writes);
        assert_int_equal(guest_send(g, FUSE_GETATTR, file, &(struct fuse_getattr_in){ 0 },
                                    sizeof(struct fuse_getattr_in), NULL, 0),
                         -ESTALE);
}

static void names_are_those_of_the_moment(void **state)
{
        (void)state;
        put("old", "text");
        uint64_t node = node_of(ROOT, "old"), handle = opened(node, O_RDONLY);
        assert_int_equal(renameat(root_fd, "old", root_fd, "new"), 0);
        put("old", "another");
        save();
        go_on();
        assert_int_equal(guest_read(g, FUSE_READ, node, handle, 0, 100), 0);
        assert_memory_equal(g->answer, "text", 4);
}

static void what_has_no_name_is_forgotten_unless_it_is_open(void **state)
{
        (void)state;
        put("a file", "");
        uint64_t node = node_of(ROOT, "a file"), handle = opened(node, O_RDWR);
        assert_int_equal(unlinkat(root_fd, "a file", 0), 0);
        save_is_refused("a file (deleted)' is open in the guest");
        guest_release(g, FUSE_RELEASE, node, handle);
        save();
        go_on();
        assert_int_equal(guest_send(g, FUSE_GETATTR, node, &(struct fuse_getattr_in){ 0 },
                                    sizeof(struct fuse_getattr_in), NULL, 0),
                         -ESTALE);
}

static void what_is_not_there_any_more_is_named(void **state)
{
        (void)state;
        put("known", "");
        uint64_t node = node_of(ROOT, "known");
        (void)opened(node, O_RDWR);
        save();
        load_is_refused((struct fs_options){ .read_only = true }, "known' was open for writing");
        char *only[] = { (char[]){ "other" }, NULL };
        load_is_refused((struct fs_options){ .only = only }, "'known', which the snapshot's guest");
        assert_int_equal(unlinkat(root_fd, "known", 0), 0);
        load_is_refused((struct fs_options){ 0 },
                        "'known', which the snapshot's guest knows: No such");
        assert_int_equal(mkdirat(root_fd, "known", 0755), 0);
        load_is_refused((struct fs_options){ 0 }, "'known' is of another type");
}

static void an_exclusive_directory_is_as_it_was(void **state)
{
        (void)state;
        struct err err = { 0 };
        const struct fs_options exclusive = { .exclusive = true };
        put("f", "1");
        serve(exclusive);
        (void)node_of(ROOT, "f");
        save();
        serve_anew(exclusive);
        assert_int_equal(load_bytes(saved.buf.data, saved.buf.size, &err), 0);
        put("f", "12");
        load_is_refused(exclusive, "'f' was changed after the snapshot");
        go_on(); /* who shares it asks anew anyway */
}

/* One node of the root directory's device at this path. */
static void path_is_refused(const char *path, const char *why)
{
        struct err err = { 0 };
        struct state_writer w = { .now_ns = 1 };
        state_put(&w, 2, 8);
        state_put(&w, 1, 8);
        state_put(&w, S_IFDIR, 4);
        state_put(&w, 0, 8);
        state_put(&w, 0, 8);
        state_put(&w, strlen(path), 2);
        state_put_bytes(&w, path, strlen(path));
        state_put(&w, 0, 8);
        state_put(&w, 0, 8);
        serve_anew((struct fs_options){ 0 });
        if (load_bytes(w.buf.data, w.buf.size, &err) == 0)
                fail_msg("'%s' was taken", path);
        state_writer_finish(&w);
        says(&err, why);
}

static void a_snapshot_reaches_no_further_than_a_guest(void **state)
{
        (void)state;
        assert_int_equal(mkdirat(root_fd, "d", 0755), 0);
        assert_int_equal(symlinkat("/etc", root_fd, "link"), 0);
        path_is_refused("/etc", "has a path that is none");
        path_is_refused("../etc", "'../etc'");
        path_is_refused("d/../..", "'d/../..'");
        path_is_refused("link", "of another type");
        path_is_refused("link/ssl", "'link/ssl'");
        path_is_refused("", "there twice"); /* the root, under another number */
}

static void any_part_of_it_is_harmless(void **state)
{
        (void)state;
        struct err err = { 0 };
        put("f", "");
        (void)opened(node_of(ROOT, "f"), O_RDWR);
        save();
        for (size_t n = 0; n < saved.buf.size; n++) {
                serve_anew((struct fs_options){ 0 });
                assert_true(load_bytes(saved.buf.data, n, &err) < 0);
        }
        for (size_t at = 0; at < saved.buf.size; at++) {
                char was = saved.buf.data[at];
                for (unsigned i = 0; i < 4; i++) {
                        static const uint8_t values[] = { 0, 1, 0x80, 0xff };
                        saved.buf.data[at] = (char)values[i];
                        serve_anew((struct fs_options){ 0 });
                        (void)load_bytes(saved.buf.data, saved.buf.size, &err);
                }
                saved.buf.data[at] = was;
        }
        state_writer_finish(&saved);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(numbers_mean_the_same_in_another_server, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(names_are_those_of_the_moment, setup, teardown),
                cmocka_unit_test_setup_teardown(what_has_no_name_is_forgotten_unless_it_is_open,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(what_is_not_there_any_more_is_named, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(an_exclusive_directory_is_as_it_was, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(a_snapshot_reaches_no_further_than_a_guest, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(any_part_of_it_is_harmless, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
