# make run       try it: a private database, the service, three curl lines to paste
# make test      every test, on MariaDB and MySQL
# make versions  the suite on these two and on MariaDB 10.5 and 11.8
# make latest    the suite on MariaDB 11.8, without the clients, which do not depend on the database
# make check     what CI runs in addition to `latest` and `shipped`: formatting, lints, documentation,
#                tests, the unit file
# make dist      the static binary, in dist/
# make shipped   the static binary, with the tests in which it could differ, and the tests of the
#                package and the image
# make deb       a Debian package of the binary, in dist/; make test-deb tests it in a booted Debian
#                (two minutes)
# make image     a container image of the binary, in podman's storage; make test-image tests it
# make bench     a table of the speed of session-lock and others (a quarter of an hour, on a quiet
#                machine)
# make mutants   breaks each promise on purpose and checks that a test fails (hours)
# make torture [SECONDS=3600] [SEED=7]  causes many failures at once, and checks the answers that the
#                clients got; then a Galera cluster, and a group of Group Replication, lose their first
#                node, for a quarter of the time each
# make n8n       each case through the workflow clients/n8n.json in a real n8n (1.8 GB from npm; five
#                minutes at first)
# make prove     explores every interleaving of the statements in larger scenes (minutes), and counts
#                the states
# Each target installs missing programs, as root on Debian; elsewhere it names them.

# A file must be short enough to read at once.
file_lines_max = 500
musl = x86_64-unknown-linux-musl
needed = compiler mariadb mysql chromium curl faketime languages nginx promtool schemathesis strace systemd

.PHONY: run test versions latest check dist deb image shipped test-deb test-image bench mutants torture prove n8n

run:
	tests/install compiler server
	cargo run --release -- dev

test:
	tests/install $(needed)
	cargo test

versions:
	tests/install $(needed) mariadb-10.5 mariadb-11.8
	DATABASES=mariadb-10.5,mariadb,mariadb-11.8,mysql cargo test --test it

latest:
	tests/install $(needed) mariadb-11.8
	DATABASES=mariadb-11.8 cargo test --test it -- --skip ::clients::

check: test
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
	tests/unit-file
	tests/openapi
	tests/docs
	! wc -l $$(git ls-files '*.rs' tests sql) | awk '$$1 > $(file_lines_max) && $$2 != "total"' | grep .

dist:
	tests/install compiler musl
	cargo build --release --target $(musl)
	install -D -t dist target/$(musl)/release/session-lock

deb: dist
	packaging/deb

image: dist
	tests/install image
	packaging/image

test-deb: deb
	tests/install curl lintian boot
	tests/deb
	tests/deb-booted

test-image: image
	tests/install compose
	tests/image

shipped: dist test-deb test-image
	tests/install $(needed)
	BINARY=$(CURDIR)/dist/session-lock cargo test --test it -- ::tls::
	BINARY=$(CURDIR)/dist/session-lock cargo test --test it -- _64_mib

bench:
	tests/install compiler mariadb mysql etcd redis
	cargo bench --bench throughput

mutants:
	tests/install $(needed) mutants
	tests/mutants

torture: export SECONDS := $(or $(SECONDS),3600)
torture: export SEED := $(SEED)
torture: export GALERA := $(or $(GALERA),$(shell expr $(SECONDS) / 4))
torture: export GROUP := $(or $(GROUP),$(shell expr $(SECONDS) / 4))
torture:
	tests/install $(needed) galera
	cargo test --test torture

n8n:
	tests/install compiler server n8n
	cargo build
	tests/n8n

prove:
	tests/install compiler
	PROVE=1 cargo test --release --test model no_interleaving -- --nocapture
