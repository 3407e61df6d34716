# Sourced by the peers that run on a JVM: finds Java 17, fetches jars from Maven Central.
# cmd/bench/internal/testbed/peer.go has the rules.

# unavailable ends the peer with the status that makes bench skip it.
unavailable() {
	echo "$*" >&2
	exit 75
}

# find_java sets JAVA_HOME to a Java 17: Spark 3.5 and Flink 1.20 run on no newer one.
find_java() {
	for java in "$(command -v java || :)" /usr/lib/jvm/*17*/bin/java; do
		if [ -x "$java" ] && "$java" -version 2>&1 | grep -q 'version "17\.'; then
			JAVA_HOME=$(dirname "$(dirname "$(readlink -f "$java")")")
			export JAVA_HOME
			return
		fi
	done
	unavailable 'no Java 17 on PATH or below /usr/lib/jvm (Debian: apt-get install openjdk-17-jre-headless)'
}

# jars_of POM BASE names the directory of a POM's jars: another POM, another directory.
jars_of() {
	echo "$2-$(cksum <"$1" | cut -d ' ' -f 1)"
}

# fetch_jars POM DIRECTORY [MAVEN OPTION...] copies what the POM depends on. The directory appears at
# once and complete, so that what broke off is begun again.
fetch_jars() {
	pom=$1 to=$2
	shift 2
	[ -d "$to" ] && return
	command -v mvn >/dev/null || unavailable 'no mvn on PATH to fetch jars with (Debian: apt-get install maven)'
	rm -rf "$to.part"
	mkdir -p "$to.part"
	cp "$pom" "$to.part/pom.xml"
	mvn --batch-mode --quiet --file "$to.part/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
		-DincludeScope=runtime -DoutputDirectory="$to.part/jars" "$@" >&2 || unavailable 'Maven could not fetch the jars'
	mv "$to.part/jars" "$to"
	rm -rf "$to.part"
}
